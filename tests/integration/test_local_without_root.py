"""Tests that machines are the same to a router that an ordinary user runs."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from matrix.processes import Identity, is_alive, python_reach, spawn
from matrix.testing.local_machines import LocalCase


class Case(LocalCase):
    reactor = reactor


class WithoutRootTests(Case):
    """The same provider, run by an ordinary user."""

    timeout = 300

    async def test_the_contract_holds_without_root(self) -> None:
        self.needs_root()
        tests = Path(__file__).absolute().parent
        names = [str(tests / name) for name in ("test_local_provider.py", "test_local_crash.py")]
        place = self.directory / "unprivileged"
        place.mkdir()
        os.chown(place, 65534, 65534)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["--import-mode=importlib", "--rootdir", str(tests.parent), *names]
        line = f'{shlex.join(command)}; echo "exit $?"'
        process = await deferToThread(
            spawn,
            ["/bin/sh", "-c", line],
            env={"PATH": "/usr/bin:/bin", "TMPDIR": str(place), "HOME": str(place)},
            cwd=place,
            identity=Identity(65534, 65534),
            log=self.directory / "log",
            reach=[*python_reach(), tests.parent],
        )
        await self.eventually(lambda: not is_alive(process), seconds=280)
        text = (self.directory / "log").read_text()
        self.assertTrue(text.endswith("exit 0\n"), text[-5000:])
