"""Fly on this host: the Machines API over HTTP, and machines that are local processes."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime

from matrix.errors import ConfigurationError
from matrix.testing.fly.addresses import Addresses
from matrix.testing.fly.api import FlyApi
from matrix.testing.fly.apps import Apps
from matrix.testing.fly.chance import Chance
from matrix.testing.fly.command import Command
from matrix.testing.fly.control import Control
from matrix.testing.fly.faults import Faults
from matrix.testing.fly.leases import Leases
from matrix.testing.fly.lifecycle import Lifecycle
from matrix.testing.fly.machines import Machines
from matrix.testing.fly.metadata import Metadata
from matrix.testing.fly.migration import Migration
from matrix.testing.fly.operators import Operators
from matrix.testing.fly.organization import Organization
from matrix.testing.fly.power import Power
from matrix.testing.fly.programs import IPrograms, LocalPrograms
from matrix.testing.fly.snapshots import Snapshots
from matrix.testing.fly.store import Store
from matrix.testing.fly.tuning import Tuning
from matrix.testing.fly.volumes import Volumes
from matrix.testing.fly.web import Port
from matrix.testing.fly.world import World

TOKEN, ORGANIZATION = "fly-emulator", "personal"


class Parts:
    """The emulated Fly, put together, without a port of its own."""

    def __init__(
        self,
        clock: IReactorTime,
        directory: Path,
        programs: IPrograms,
        *,
        now: Callable[[], float] = time.time,
        seed: int = 0,
        tuning: Tuning | None = None,
        tokens: Mapping[str, str] | None = None,
        addresses: Addresses | None = None,
        check_answers: bool = True,
    ) -> None:
        """
        @param directory: the state; made if missing.
        @param now: the Unix time, in step with the clock.
        @param tokens: the organization of each token.
        @raise ConfigurationError: the directory cannot be used.
        """
        chance = Chance(seed)
        self.world = World(
            clock,
            now,
            Store(directory),
            tuning=tuning or Tuning(),
            chance=chance,
            addresses=addresses or Addresses(str(directory.absolute())),
        )
        self.lifecycle = Lifecycle(self.world, programs)
        self.volumes = Volumes(self.world)
        self.snapshots = Snapshots(self.world)
        leases = Leases(self.world)
        migration = Migration(self.world, self.lifecycle, self.volumes, programs)
        nouns = (
            Apps(self.world, self.lifecycle, self.volumes),
            Machines(self.world, self.lifecycle, leases),
            Power(self.world, self.lifecycle, leases, programs, migration),
            leases,
            Metadata(self.world),
            self.volumes,
            self.snapshots,
            Organization(self.world),
        )
        actions = [action for noun in nouns for action in noun.actions()]
        self.api = FlyApi(
            self.world, actions, tokens or {TOKEN: ORGANIZATION}, Faults(chance), check_answers
        )
        self.operators = Operators(self.world, self.lifecycle, self.volumes, programs, migration)
        self.control = Control(self.world, self.api, self.operators)
        for part in (self.lifecycle, self.volumes, self.snapshots):
            part.load()

    def close(self) -> None:
        """Let nothing more happen."""
        for part in (self.lifecycle, self.volumes, self.snapshots):
            part.close()
        self.world.store.close()


class FlyEmulator:
    """
    L{Parts} with real processes, on a port. One at a time may have a state directory; those
    that come later find in it what earlier ones left, their machines' processes included.
    """

    def __init__(
        self, reactor: Any, directory: Path, program: str = "tiny", **options: Any
    ) -> None:
        """
        @param program: what machines run: C{tiny}, C{daemon} or a command
            (L{matrix.testing.fly.command}).
        @param options: those of L{Parts}.
        @raise ConfigurationError: the program or the directory cannot be used.
        """
        command = Command.parse(program)
        self._lock = _lock(directory)
        self._programs = LocalPrograms(reactor, command)
        self.parts = Parts(reactor, directory, self._programs, **options)
        self._port = Port(self.parts.api, self.parts.control, reactor)
        self.url = ""

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """
        @param port: 0 for any free one.
        @return: the URL, without a slash at the end.
        """
        self.url = self._port.listen(host, port)
        return self.url

    async def close(self, end_machines: bool = True) -> None:
        """
        @param end_machines: whether to kill the machines' processes: to them that is a power
            cut. The next emulator of this directory boots those again that were started.
        """
        await self._port.close()
        self.parts.close()
        await self._programs.close(end_machines)
        os.close(self._lock)


def _lock(directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigurationError(f"{directory} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(f"another emulator runs in {directory}") from None
    return descriptor
