"""The real restic client against a repository service that runs in the test's own reactor."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from matrix.http import ServerFactory
from matrix.http.interfaces import Handler, Request
from matrix.model import Address, UserId
from matrix.net import NativeServerEndpoint, Wheel, bind, event_loop
from matrix.snapshots._heads import bad_credentials, basic_credentials
from matrix.snapshots.interfaces import Access

ALICE = UserId("0a1b2c3d-0000-4000-8000-00000000000a")
BOB = UserId("0a1b2c3d-0000-4000-8000-00000000000b")

CREDENTIALS = {ALICE: "alices-credential", BOB: "bobs-credential"}
OPERATOR = "operators-credential"
"""With any user's id: what retention has, who may delete."""

SECONDS = 120
"""For one run of restic, on a busy host."""


class KnownCredentials:
    """An L{matrix.snapshots.interfaces.Admission} of two users, and of an operator."""

    async def admit(self, request: Request) -> Access:
        user, password = basic_credentials(request)
        if password not in (OPERATOR, CREDENTIALS.get(UserId(user))):
            raise bad_credentials("credential")
        return Access(UserId(user), full=password == OPERATOR)


@dataclass(frozen=True)
class Ran:
    """A run of restic that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output, one JSON document a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class ResticCase(TestCase):
    """
    Mix-in for trial: L{serve} a handler, then run L{restic} against it. Set C{reactor}.
    """

    timeout = 300
    reactor: Any

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="matrix-restic-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.source = self.folder / "source"
        self.source.mkdir()
        self.port = 0

    async def serve(self, handler: Handler) -> None:
        """Serve it on a port of its own until the test is over."""
        (listener,) = bind(Address(host="127.0.0.1", port=0))
        self.port = listener.getsockname()[1]
        wheel = Wheel(self.reactor)
        wheel.start()
        self.addCleanup(wheel.stop)
        factory = ServerFactory(handler, wheel)
        self.factory = factory
        endpoint = NativeServerEndpoint(event_loop(self.reactor), listener)
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)

    def url(self, user: UserId = ALICE, password: str | None = None) -> str:
        """What restic is told with C{-r}."""
        word = password or CREDENTIALS[user]
        return f"rest:http://{user}:{word}@127.0.0.1:{self.port}/restic/{user}/"

    def fill(self, files: int, size: int, seed: int = 1) -> None:
        """Write files that do not compress, differing by seed."""
        chance = random.Random(seed)  # noqa: S311 - reproducible is what it is to be
        for number in range(files):
            (self.source / f"file-{seed}-{number}").write_bytes(chance.randbytes(size))

    def start(self, *arguments: str, url: str | None = None) -> subprocess.Popen[bytes]:
        """Begin a run of restic, for the caller to end."""
        return subprocess.Popen(
            ["restic", "-r", url or self.url(), *arguments],
            env=self._environment(),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def restic(self, *arguments: str, url: str | None = None) -> defer.Deferred[Ran]:
        """Run restic to its end."""

        def run() -> Ran:
            with self.start(*arguments, url=url) as process:
                try:
                    out, err = process.communicate(timeout=SECONDS)
                finally:
                    process.kill()
                return Ran(process.returncode, out.decode(), err.decode())

        return deferToThread(run)

    def complaint(self, *arguments: str, text: str) -> defer.Deferred[str]:
        """
        Run restic until it complains with a text, and end it then: some versions go on
        trying what is refused for good. What it has said.
        """

        def run() -> str:
            with self.start(*arguments) as process:
                assert process.stderr is not None
                said = b""
                try:
                    while text.encode() not in said and (line := process.stderr.readline()):
                        said += line
                finally:
                    process.kill()
                return said.decode()

        return deferToThread(run)

    async def done(self, *arguments: str, url: str | None = None) -> Ran:
        """Run restic; it must succeed."""
        ran = await self.restic(*arguments, url=url)
        assert ran.code == 0, f"restic {arguments} ended with {ran.code}:\n{ran.out}\n{ran.err}"
        return ran

    async def backup(self) -> Ran:
        """Snapshot the source."""
        return await self.done("backup", "--host", "alice", "--json", str(self.source))

    async def sound(self, url: str | None = None) -> None:
        """Every byte that was ever stored is still right."""
        ran = await self.done("check", "--read-data", url=url)
        assert "no errors were found" in ran.out, ran

    async def restored_is_the_source(self) -> None:
        """What the newest snapshot holds is what the source holds now."""
        target = self.folder / "restored"
        await self.done("restore", "latest", "--target", str(target))
        compared = await deferToThread(
            subprocess.run,
            ["diff", "-r", "--no-dereference", str(self.source), f"{target}{self.source}"],
            capture_output=True,
        )
        assert compared.returncode == 0, compared.stdout
        shutil.rmtree(target)

    def _environment(self) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "RESTIC_PASSWORD": "the-password-of-the-repository",
            "RESTIC_CACHE_DIR": str(self.folder / "cache"),
            "RESTIC_PROGRESS_FPS": "0",
            "NO_PROXY": "127.0.0.1",
            "GOMAXPROCS": "2",
        }
