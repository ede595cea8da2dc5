"""Programs that are only remembered: the twin of processes, for tests without any."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from zope.interface import implementer

from matrix.testing.fly.programs import Boot, IPrograms, NotStarted


@implementer(IPrograms)
class MemoryPrograms:
    """Each program does as it is told, at once."""

    def __init__(self) -> None:
        self.boots: list[Boot] = []
        """All that were ever begun."""
        self.alive: dict[str, Boot] = {}
        self.frozen: set[str] = set()
        self.signals: list[tuple[str, int]] = []
        self.endings: list[tuple[str, int, float]] = []
        """Whom, by which signal, and after which grace."""
        self.broken = False
        """Whether nothing can be started."""
        self._died: Callable[[str], None] = lambda machine_id: None

    def adopt(self, machine_id: str, place: Path) -> bool:
        """They outlive an emulator as long as this object is passed on."""
        return machine_id in self.alive

    async def boot(self, boot: Boot) -> None:
        """At once."""
        if self.broken:
            raise NotStarted("nothing can be started")
        self.boots.append(boot)
        self.alive[boot.machine_id] = boot
        self.frozen.discard(boot.machine_id)

    def running(self, machine_id: str) -> bool:
        """Whether it is alive."""
        return machine_id in self.alive

    def stands(self, machine_id: str) -> bool:
        """Whether it stands still."""
        return machine_id in self.frozen

    def send(self, machine_id: str, number: int) -> None:
        """SIGSTOP, SIGCONT and SIGKILL have their effects."""
        if machine_id not in self.alive:
            return
        self.signals.append((machine_id, number))
        if number == signal.SIGSTOP:
            self.frozen.add(machine_id)
        elif number == signal.SIGCONT:
            self.frozen.discard(machine_id)
        elif number == signal.SIGKILL:
            self.die(machine_id)

    async def end(self, machine_id: str, number: int, grace: float) -> None:
        """At once."""
        if self.alive.pop(machine_id, None) is not None:
            self.endings.append((machine_id, number, grace))
            self.frozen.discard(machine_id)

    def processes(self) -> Mapping[str, int]:
        """They have no process ids."""
        return dict.fromkeys(self.alive, 0)

    def on_death(self, died: Callable[[str], None]) -> None:
        """Called by L{die}."""
        self._died = died

    def die(self, machine_id: str) -> None:
        """A program ends by itself."""
        self.alive.pop(machine_id, None)
        self.frozen.discard(machine_id)
        self._died(machine_id)
