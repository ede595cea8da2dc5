"""What tests of local machines share: a provider of real processes that leaves nothing behind."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from matrix.machines import LocalProvider, Started
from matrix.model import Address, Machine
from matrix.processes import Process, find, is_alive
from matrix.testing.provider_suite import made, somebody

PROGRAM = Path(__file__).with_name("machine_program.py")
COMMAND = shlex.join([sys.executable, str(PROGRAM)])
SOCKET_COMMAND = f"{COMMAND} {{socket}} {{data}} {{user}}"
PORT_COMMAND = f"{COMMAND} {{port}}"
ROOT = os.geteuid() == 0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("machine", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _get(address: Address, path: str) -> dict[str, Any]:
    """Ask a machine, as soon as it answers. Blocks."""
    deadline = time.monotonic() + 20
    while True:
        connection = (
            _UnixConnection(address.path)
            if address.path
            else http.client.HTTPConnection(str(address.host), address.port, timeout=10)
        )
        try:
            connection.request("GET", path)
            return dict(json.loads(connection.getresponse().read()))
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        finally:
            connection.close()


async def ask(started: Started, path: str) -> dict[str, Any]:
    """What a machine answers, once it does."""
    return await deferToThread(_get, started.address, path)


class LocalCase(TestCase):
    """A provider in a state directory of its own, and nothing left of both."""

    timeout = 60

    reactor: Any
    """The running one, set by the tests: only they and taps may import it."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="matrix-test-"))
        self.directory.chmod(0o711)
        self.addCleanup(shutil.rmtree, self.directory)
        self.providers: list[LocalProvider] = []
        self.provider = self.successor()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.leave_nothing()))

    async def leave_nothing(self) -> None:
        """Stop everything before the directory goes (cleanups run in reverse order)."""
        leaders = self.leaders()
        last = self.successor()
        await last.close(stop_machines=True)
        for provider in self.providers:
            await provider.close(stop_machines=False)
        assert not any(map(is_alive, leaders))

    def successor(self, command: str | None = SOCKET_COMMAND, **options: Any) -> LocalProvider:
        options = {"grace": 1.0, **options}
        provider = LocalProvider(self.directory / "state", command, self.reactor, **options)
        self.providers.append(provider)
        return provider

    def home(self, machine: Machine) -> Path:
        return self.directory / "state" / "machines" / machine.user_id

    def leader(self, machine: Machine) -> Process:
        process = find(int((self.home(machine) / "pid").read_text().split()[0]))
        assert process is not None
        return process

    def leaders(self) -> list[Process]:
        files = self.directory.glob("state/machines/*/pid")
        found = [find(int(path.read_text().split()[0])) for path in files]
        return [process for process in found if process and process.pid != os.getpid()]

    async def booted(self, environment: Any = {}) -> tuple[Machine, Started]:  # noqa: B006
        machine = await made(self.provider, somebody())
        return machine, await self.provider.start(machine, environment)

    async def eventually(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        """Return once C{condition()} is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come true"
            await deferLater(self.reactor, 0.01)

    def needs_root(self) -> None:
        if not ROOT:
            raise SkipTest("only root can give machines users of their own")
