"""Fly's rate limits, kept before Fly has to: a queue for each bucket, the urgent ones first.

Facts/fly.md section 1: per action and machine (per action and app for what concerns an app)
one call per second with a burst of three; reading a machine five per second, burst ten.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from heapq import heappop, heappush
from itertools import count

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

SWEEP_SIZE = 1024
"""Buckets from which on those that are full are looked for, at each doubling."""


RESTART = 3.0
"""Seconds after which any burst of a process before us is forgiven."""


class Priority(IntEnum):
    """Who goes first where calls have to wait."""

    WAKE = 0
    """Somebody waits for the answer."""
    ALARM = 1
    SNAPSHOT = 2
    HOUSEKEEPING = 3


_BY_CAUSE: Mapping[str | None, Priority] = {
    "alarm": Priority.ALARM,
    "snapshot": Priority.SNAPSHOT,
    "survey": Priority.HOUSEKEEPING,
}


def urgency(cause: str | None) -> Priority:
    """How urgent it is what is done to a machine for this cause (C{Machine.wake_cause})."""
    return _BY_CAUSE.get(cause, Priority.WAKE)


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be done."""

    per_second: float
    burst: int


USUAL = Rate(1.0, 3)
READING = Rate(5.0, 10)


class _Bucket:
    """Tokens that come back with time, and those who wait for one."""

    def __init__(self, clock: IReactorTime, rate: Rate, tokens: float) -> None:
        self._clock = clock
        self._rate = rate
        self._tokens = tokens
        self._counted_at = clock.seconds()
        self._queue: list[tuple[int, int, Deferred[None]]] = []
        self._order = count()
        self._armed = False
        self._closed_until = 0.0

    @property
    def is_full(self) -> bool:
        """Whether nothing would be lost with it."""
        self._refill()
        return not self._queue and self._tokens >= self._rate.burst

    def take(self, priority: Priority) -> Deferred[None]:
        self._refill()
        if not self._queue and self._may_go():
            self._tokens -= 1
            return succeed(None)
        turn: Deferred[None] = Deferred()
        heappush(self._queue, (priority, next(self._order), turn))
        self._arm()
        return turn

    def close_for(self, seconds: float) -> None:
        """Fly refused all the same: nobody goes for a while, and none is left over."""
        self._refill()
        self._tokens = 0.0
        self._closed_until = max(self._closed_until, self._clock.seconds() + seconds)

    def _may_go(self) -> bool:
        return self._tokens >= 1 and self._clock.seconds() >= self._closed_until

    def _refill(self) -> None:
        now = self._clock.seconds()
        gained = (now - self._counted_at) * self._rate.per_second
        self._tokens = min(self._rate.burst, self._tokens + gained)
        self._counted_at = now

    def _arm(self) -> None:
        if self._queue and not self._armed:
            self._armed = True
            short = max(0.0, 1 - self._tokens) / self._rate.per_second
            closed = self._closed_until - self._clock.seconds()
            self._clock.callLater(max(short, closed, 0.0), self._release)

    def _release(self) -> None:
        self._armed = False
        self._refill()
        # A millionth: what the clock says may lie just before what was asked of it.
        while (
            self._queue
            and (self._tokens >= 1 - 1e-6)
            and self._clock.seconds() >= self._closed_until
        ):
            _, _, turn = heappop(self._queue)
            if not turn.called:  # nor given up
                self._tokens -= 1
                turn.callback(None)
        self._arm()


class RateLimiter:
    """Lets calls to Fly through no faster than it takes them."""

    def __init__(self, clock: IReactorTime, *, restarted: bool = False) -> None:
        """@param restarted: whether a process before us may just have made calls."""
        self._clock = clock
        self._until = clock.seconds() + (RESTART if restarted else 0.0)
        self._buckets: dict[Hashable, _Bucket] = {}
        self._sweep_at = SWEEP_SIZE

    def __len__(self) -> int:
        return len(self._buckets)

    def turn(self, key: Hashable, rate: Rate, priority: Priority) -> Deferred[None]:
        """
        Fires when the call may be made; cancel it to make none.

        @param key: whose limit it is: an action and what it is done to.
        """
        return self._bucket(key, rate).take(priority)

    def refused(self, key: Hashable, rate: Rate, retry_after: float | None) -> None:
        """
        Fly said 429: its count is another than ours.

        @param retry_after: seconds, if it said.
        """
        self._bucket(key, rate).close_for(
            1 / rate.per_second if retry_after is None else retry_after
        )

    def _bucket(self, key: Hashable, rate: Rate) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._sweep_at:
                self._sweep()
            # As if most of a burst had been used a moment ago: so it may be by Fly's count.
            tokens = 1 if self._clock.seconds() < self._until else rate.burst
            bucket = self._buckets[key] = _Bucket(self._clock, rate, float(tokens))
        return bucket

    def _sweep(self) -> None:
        self._buckets = {key: one for key, one in self._buckets.items() if not one.is_full}
        self._sweep_at = max(SWEEP_SIZE, 2 * len(self._buckets))
