"""Those who wait for a machine to reach a state."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from matrix.testing.fly.records import Machine
from matrix.testing.fly.refusals import Refusal, not_found
from matrix.testing.fly.states import SETTLED


@dataclass(frozen=True)
class Wanted:
    """What somebody waits for."""

    states: Collection[str]
    version: str | None = None
    """The one that must have reached it; any if C{None}."""
    after: str = ""
    """The event after which it must have."""

    def reached(self, machine: Machine) -> bool:
        """Whether it is so."""
        if self.version not in (None, machine.instance_id):
            return False
        if not machine.events or machine.events[0]["id"] <= self.after:
            return False
        settled = machine.state in SETTLED and machine.step is None
        return machine.state in self.states or ("settled" in self.states and settled)


@dataclass(eq=False)
class _Waiter:
    wanted: Wanted
    answer: Deferred[dict[str, Any]] = field(default_factory=Deferred)
    timer: IDelayedCall | None = None


class Waits:
    """All of them, by machine."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[str, list[_Waiter]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def wait(
        self, machine: Machine, wanted: Wanted, seconds: float, wording: str
    ) -> Deferred[dict[str, Any]]:
        """
        Fires with the answer; fails with a L{Refusal} when the time is over or the machine is
        gone for good. May be cancelled.

        @param wording: C{new} or C{old}, of the refusal.
        """
        waiter = _Waiter(wanted)
        waiter.answer = Deferred(lambda _: self._remove(machine, waiter))
        if not self._tell(machine, waiter):
            self._waiting.setdefault(machine.id, []).append(waiter)
            waiter.timer = self._clock.callLater(seconds, self._late, machine, waiter, wording)
        return waiter.answer

    def changed(self, machine: Machine) -> None:
        """Something is different with a machine."""
        for waiter in list(self._waiting.get(machine.id, ())):
            self._tell(machine, waiter)

    def _tell(self, machine: Machine, waiter: _Waiter) -> bool:
        if waiter.wanted.reached(machine):
            self._remove(machine, waiter)
            waiter.answer.callback(
                {
                    "ok": True,
                    "state": machine.state,
                    "event_id": machine.events[0]["id"],
                    "version": machine.instance_id,
                }
            )
            return True
        if machine.state == "destroyed":
            self._remove(machine, waiter)
            waiter.answer.errback(not_found("machine"))
            return True
        return False

    def _late(self, machine: Machine, waiter: _Waiter, wording: str) -> None:
        self._remove(machine, waiter)
        states = ", ".join(waiter.wanted.states)
        text = f"machine failed to reach desired state, {states}, currently {machine.state}"
        prefix = "deadline_exceeded: " if wording == "new" else ""
        waiter.answer.errback(Refusal(408, prefix + text))

    def _remove(self, machine: Machine, waiter: _Waiter) -> None:
        waiting = self._waiting.get(machine.id, [])
        if waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._waiting[machine.id]
        if waiter.timer is not None and waiter.timer.active():
            waiter.timer.cancel()
