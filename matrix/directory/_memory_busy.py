"""What machines are busy with, in the directory's in-memory twin."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory.interfaces import IBusy, UnknownUser
from matrix.model import Busy, UserId


@implementer(IBusy)
class MemoryBusy:
    """Leases in a dictionary. Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(
        self,
        clock: IReactorTime,
        reach: Callable[[], None],
        is_active: Callable[[UserId], bool],
        tell: Callable[[Busy, float, datetime], None],
    ) -> None:
        """
        @param reach: called first in each awaitable method; raises while there is an outage.
        @param is_active: whether there is such a user, who may come in.
        @param tell: notes a new lease, with the seconds asked for and the time from which on a
            machine must have been in use for it to count.
        """
        self._clock = clock
        self._reach = reach
        self._is_active = is_active
        self._tell = tell
        self._rows: dict[UserId, Busy] = {}

    async def hold(self, user_id: UserId, reason: str, seconds: float, longest: float) -> Busy:
        """See L{IBusy.hold}."""
        self._reach()
        if not self._is_active(user_id):
            raise UnknownUser(f"there is no user {user_id} who may come in")
        now = self._now()
        known = self._current(user_id)
        until = now + timedelta(seconds=seconds)
        busy = self._rows[user_id] = Busy(user_id, reason, known.since if known else now, until)
        if known is None:
            self._tell(busy, seconds, now - timedelta(seconds=longest))
        return busy

    async def end(self, user_id: UserId) -> bool:
        """See L{IBusy.end}."""
        self._reach()
        ended = self._current(user_id) is not None
        self._rows.pop(user_id, None)
        return ended

    async def of(self, user_ids: Collection[UserId]) -> Mapping[UserId, Busy]:
        """See L{IBusy.of}."""
        self._reach()
        found = ((user_id, self._current(user_id)) for user_id in user_ids)
        return {user_id: busy for user_id, busy in found if busy is not None}

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.seconds(), UTC)

    def _current(self, user_id: UserId) -> Busy | None:
        busy = self._rows.get(user_id)
        return busy if busy is not None and busy.until > self._now() else None
