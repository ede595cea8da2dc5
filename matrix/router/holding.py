"""Keeping a machine's row from other routers for as long as something takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from matrix.machines import LifecycleEvent
from matrix.model import Machine
from matrix.router.fleet import LEASE, Fleet

LOOK_INTERVAL = 0.1
"""Seconds between two looks at what else goes on, while something is waited for."""

PROLONG_AFTER = LEASE.total_seconds() / 3
"""Seconds after which a lease is renewed: two attempts may fail before it is over."""

_T = TypeVar("_T")
_log = Logger()


class Hold:
    """A machine that is in this router's hands."""

    def __init__(
        self, fleet: Fleet, machine: Machine, noted: Callable[[Machine], None] = lambda row: None
    ) -> None:
        """@param noted: told of the row after each change."""
        self._fleet = fleet
        self._noted = noted
        self._leased_at = 0.0
        self.machine = machine
        """Its row as it is now."""

    async def advance(self, event: LifecycleEvent, **fields: object) -> None:
        """
        Write down what follows from an event; others are kept away from then on.

        @raise StaleRow: another router was faster.
        """
        fleet = self._fleet
        self._note(await fleet.advance(self.machine, event, **fields, **fleet.claim()))
        self._leased_at = fleet.clock.seconds()

    async def settle(self, event: LifecycleEvent, **fields: object) -> None:
        """As L{advance}, and for the last time: others may have it."""
        self._note(await self._fleet.settle(self.machine, event, **fields))

    async def release(self) -> None:
        """
        Let others have it, in whatever state it is.

        @raise StaleRow: another router was faster.
        """
        changing = self._fleet.directory.change(
            self.machine, lease_owner=None, lease_expires_at=None
        )
        self._note(await changing)

    async def prolong(self) -> None:
        """
        Keep others away for longer, if it is time for that.

        @raise StaleRow: another router was faster.
        """
        fleet = self._fleet
        if fleet.clock.seconds() - self._leased_at > PROLONG_AFTER:
            self._note(await fleet.directory.change(self.machine, **fleet.claim()))
            self._leased_at = fleet.clock.seconds()

    def is_newest(self, found: Machine) -> bool:
        """Whether nobody changed the row after us, as it was found."""
        return found.generation <= self.machine.generation

    async def during(
        self, work: Coroutine[Any, Any, _T], look: Callable[[], Awaitable[None]]
    ) -> _T:
        """
        The result of C{work}. Meanwhile C{look} is called again and again; the one under way is
        waited for. What fails in it is logged, and changes nothing.
        """

        async def once() -> None:
            try:
                await look()
            except Exception:  # noqa: BLE001 -- what is waited for counts, whatever this is
                _log.failure("{user}: a look failed", user=self.machine.user_id)

        looking = LoopingCall(lambda: Deferred.fromCoroutine(once()))
        looking.clock = self._fleet.clock
        ended = looking.start(LOOK_INTERVAL, now=False)
        try:
            return await work
        finally:
            if looking.running:
                looking.stop()
            await ended

    def _note(self, machine: Machine) -> None:
        self.machine = machine
        self._noted(machine)
