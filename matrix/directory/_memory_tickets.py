"""The tickets of the directory's in-memory twin."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory.interfaces import ITickets
from matrix.model import Principal


@implementer(ITickets)
class MemoryTickets:
    """Tickets in a dictionary. Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(
        self,
        clock: IReactorTime,
        reach: Callable[[], None],
        may_enter: Callable[[Principal], bool],
    ) -> None:
        """
        @param reach: called first in each awaitable method; raises while there is an outage.
        @param may_enter: whether user and session may come in now.
        """
        self._clock = clock
        self._reach = reach
        self._may_enter = may_enter
        self._tickets: dict[bytes, tuple[Principal, float]] = {}

    async def keep(self, digest: bytes, principal: Principal, life: float) -> None:
        """See L{ITickets.keep}."""
        self._reach()
        now = self._clock.seconds()
        for old in [one for one, (_, until) in self._tickets.items() if until <= now]:
            del self._tickets[old]
        self._tickets[digest] = (principal, now + life)

    async def take(self, digest: bytes) -> Principal | None:
        """See L{ITickets.take}."""
        self._reach()
        principal, until = self._tickets.pop(digest, (None, 0.0))
        if principal is None or until <= self._clock.seconds() or not self._may_enter(principal):
            return None
        return principal
