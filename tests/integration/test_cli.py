"""The command, as a process of its own, talks to the admin API over real HTTP."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from matrix.directory import MemoryDirectory
from matrix.errors import Unavailable
from matrix.http import ServerFactory
from matrix.metrics import Registry
from matrix.model import Address, MachineState, UserId
from matrix.net import NativeServerEndpoint, Wheel, bind, event_loop
from matrix.router.internal import Instance, InternalApi

TOKEN = "the-admin-token-of-this-test-0123456789"
ALICE = UserId("0a1b2c3d-0000-4000-8000-00000000000a")


class Control:
    """Changes nothing but the row."""

    def __init__(self, directory: MemoryDirectory) -> None:
        self._directory = directory

    async def wake(self, user_id: UserId, cause: str) -> None:
        machine = await self._directory.create_machine(user_id, "local")
        await self._directory.change(machine, state=MachineState.RUNNING)
        await self._directory.record(user_id, "wake", cause, {"ms": 12})

    async def suspend(self, user_id: UserId, cause: str) -> None:
        raise Unavailable("it is busy for another minute", reason="busy")


class CommandTests(TestCase):
    async def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        clock = Clock()
        clock.advance(1_795_000_000)
        directory = MemoryDirectory(clock)
        await directory.admit(ALICE, "alice@localhost")
        (listener,) = bind(Address(host="127.0.0.1", port=0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        instance = Instance("local", {"internal": url}, clock.seconds())
        api = InternalApi(directory, Control(directory), Registry(), instance, clock, TOKEN)
        wheel = Wheel(reactor)
        wheel.start()
        self.addCleanup(wheel.stop)
        endpoint = NativeServerEndpoint(event_loop(reactor), listener)
        port = await endpoint.listen(ServerFactory(api, wheel))
        self.addCleanup(port.stopListening)
        run_file = {"internal": url, "admin_token": TOKEN}
        (self.folder / "run.json").write_text(json.dumps(run_file))

    async def matrix(self, *arguments: str) -> tuple[str, str, int]:
        """Standard output, standard error and exit status."""
        environment = {"PATH": os.environ["PATH"], "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        # Not Twisted's own process support: under uvloop it may miss that a process ended.
        done = await deferToThread(
            subprocess.run,
            [sys.executable, "-m", "matrix", "--state-dir", str(self.folder), *arguments],
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.stdout.decode(), done.stderr.decode(), done.returncode

    async def test_a_wake_and_what_can_be_seen_of_it(self) -> None:
        self.assertEqual(
            await self.matrix("wake", "alice"), ("alice@localhost:  running, 0 ms\n", "", 0)
        )
        out, _, code = await self.matrix("events", "alice")
        self.assertEqual(code, 0)
        self.assertEqual(
            out.splitlines(),
            [
                "TIME                     EVENT  CAUSE     DETAIL",
                "2026-11-18 11:06:40.000  wake   operator  ms=12",
            ],
        )
        out, err, _ = await self.matrix("status")
        self.assertEqual(err, "")
        self.assertIn("machines     1 (1 running)\n", out)

    async def test_refusals_end_in_one_line(self) -> None:
        out, err, code = await self.matrix("suspend", "alice")
        self.assertEqual((out, code), ("", 1))
        self.assertEqual(
            err, "Error: Your machine is not ready yet: it is busy for another minute\n"
        )
        out, err, code = await self.matrix("events", "mallory")
        self.assertEqual((out, code), ("", 1))
        self.assertRegex(err, r"\AError: no user is known as 'mallory': [^\n]*\n\Z")
