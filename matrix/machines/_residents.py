"""The processes of one local machine, all of them: found, frozen, thawed, ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from matrix.machines._home import Home, Record
from matrix.model import MachineState
from matrix.processes import (
    Process,
    is_alive,
    marked_members,
    session_members,
    signal_process,
    state,
    user_members,
)

FROZEN = frozenset("Tt")
"""State letters of a stopped process (proc(5))."""

MACHINE_ID = "MATRIX_MACHINE_ID"
"""In the environment of each of a machine's processes: how those that left its session
are found where all machines run as one user."""


@dataclass(frozen=True, slots=True)
class Residents:
    """
    Who lives in a machine. Every method may block for a few milliseconds (all of /proc is
    read) and does one step; repeat L{freeze} and L{kill} until they return true, for
    processes that fork meanwhile get away once.

    The leader is frozen first and thawed last: while it runs, nothing is left frozen by us.
    """

    record: Record
    leader: Process | None

    @classmethod
    def of(cls, home: Home, record: Record) -> Residents:
        return cls(record, home.process())

    def observe(self) -> MachineState:
        """Running, suspended or stopped: as the leader is."""
        letter = None if self.leader is None else state(self.leader)
        if letter is None or self.leader is None or not is_alive(self.leader):
            return MachineState.STOPPED
        return MachineState.SUSPENDED if letter in FROZEN else MachineState.RUNNING

    def all(self) -> list[Process]:
        """Every living process of the machine, the leader first."""
        if self.record.uid is not None:
            found = user_members(self.record.uid)
        else:
            found = marked_members(f"{MACHINE_ID}={self.record.machine_id}")
            if self.leader is not None and is_alive(self.leader):
                found += session_members(self.leader.pid)
        return sorted(set(found), key=lambda each: (each != self.leader, each.pid))

    def freeze(self) -> bool:
        """Stop those that run. True once all were found stopped."""
        awake = [each for each in self.all() if (state(each) or "T") not in FROZEN]
        for each in awake:
            signal_process(each, signal.SIGSTOP)
        return not awake

    def thaw(self) -> None:
        """Let all go on."""
        for each in reversed(self.all()):
            signal_process(each, signal.SIGCONT)

    def ask_to_end(self) -> None:
        """The polite way; it reaches the frozen ones too."""
        for each in self.all():
            signal_process(each, signal.SIGTERM)
        self.thaw()

    def gone(self) -> bool:
        """Whether nobody is left."""
        return not self.all()

    def kill(self) -> bool:
        """The other way. True once nobody was left to be killed."""
        left = self.all()
        for each in left:
            signal_process(each, signal.SIGKILL)
        return not left
