"""For how long machines are awake, as the directory's in-memory twin counts it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory.awake import (
    AWAKE,
    FOUND,
    KEPT_DAYS,
    UNKNOWN,
    FleetWaking,
    IAwake,
    Spell,
    Waking,
)
from matrix.model import Machine, MachineState, User, UserId

DAY = 86400.0
"""Seconds."""

_Look = Callable[[UserId], tuple[User | None, Machine | None]]


@implementer(IAwake)
class MemoryAwake:
    """Made by L{matrix.directory.MemoryDirectory}, which tells of each change of a machine."""

    def __init__(self, clock: IReactorTime, reach: Callable[[], None], look: _Look) -> None:
        """
        @param reach: called first in each awaitable method; raises while there is an outage.
        @param look: what the directory has of a user.
        """
        self._clock = clock
        self._reach = reach
        self._look = look
        self._now: dict[UserId, tuple[float, str]] = {}
        self._days: dict[tuple[UserId, int, str], tuple[float, int]] = {}
        self._totals: dict[str, float] = defaultdict(float)

    def changed(self, before: Machine | None, after: Machine | None) -> None:
        """A machine's row is another, or there is none any more."""
        was = before is not None and before.state in AWAKE
        at = self._clock.seconds()
        if after is not None and after.state in AWAKE:
            if not was:
                began = after.state is MachineState.STARTING
                cause = (after.wake_cause or UNKNOWN) if began else FOUND
                self._now[after.user_id] = (at, cause)
                self._add(after.user_id, cause, at, at, 1)
        elif was and before is not None:
            since, cause = self._now.pop(before.user_id)
            self._add(before.user_id, cause, since, at, 0)

    async def top(self, days: int, limit: int) -> Sequence[Waking]:
        """See L{IAwake.top}."""
        self._reach()
        users = {user_id for user_id, _, _ in self._days}
        found = [each for one in users if (each := self._waking(one, days)).wakes]
        found.sort(key=lambda each: (-sum(each.seconds.values()), each.user_id))
        return found[:limit]

    async def of_user(self, user_id: UserId, days: int) -> Waking:
        """See L{IAwake.of_user}."""
        self._reach()
        return self._waking(user_id, days)

    async def fleet(self) -> Mapping[str, FleetWaking]:
        """See L{IAwake.fleet}."""
        self._reach()
        seconds, machines = dict(self._totals), dict.fromkeys(self._totals, 0)
        for since, cause in self._now.values():
            seconds[cause] += self._clock.seconds() - since
            machines[cause] += 1
        return {cause: FleetWaking(machines[cause], seconds[cause]) for cause in seconds}

    async def purge(self) -> int:
        """See L{IAwake.purge}."""
        self._reach()
        first = self._today - KEPT_DAYS
        old = [key for key in self._days if key[1] < first]
        for key in old:
            del self._days[key]
        return len(old)

    @property
    def _today(self) -> int:
        return int(self._clock.seconds() // DAY)

    def _add(self, user_id: UserId, cause: str, since: float, until: float, wakes: int) -> None:
        for day, seconds in _by_day(since, until):
            before = self._days.get((user_id, day, cause), (0.0, 0))
            self._days[user_id, day, cause] = (before[0] + seconds, before[1] + wakes)
        self._totals[cause] += until - since

    def _waking(self, user_id: UserId, days: int) -> Waking:
        first = self._today - days + 1
        seconds: dict[str, float] = defaultdict(float)
        wakes: dict[str, int] = defaultdict(int)
        for (whose, day, cause), (lasted, times) in self._days.items():
            if whose == user_id and day >= first:
                seconds[cause] += lasted
                wakes[cause] += times
        now = self._now.get(user_id)
        spell = None
        if now is not None:
            since, cause = now
            spell = Spell(datetime.fromtimestamp(since, UTC), cause)
            seconds[cause] += self._clock.seconds() - max(since, first * DAY)
            wakes[cause] += 0
        user, machine = self._look(user_id)
        return Waking(
            user_id,
            user.email if user else "",
            dict(seconds),
            dict(wakes),
            spell,
            machine.last_active_at if machine else None,
        )


def _by_day(since: float, until: float) -> Iterator[tuple[int, float]]:
    for day in range(int(since // DAY), int(until // DAY) + 1):
        yield day, min(until, (day + 1) * DAY) - max(since, day * DAY)
