"""Answers that somebody has to wait for, so that asking again at once gains nothing."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

STALL = 1.0
"""Seconds that each waits at least: a client on one connection asks once in that time then,
instead of hundreds of times; a person who has mistaken something hardly notices."""

TURN = 0.01
"""Seconds between two turns, in each of which some are released: all at once, a thousand would
keep everybody else waiting for a quarter of a second."""

AT_ONCE = 4
"""Released in a turn, so 400 in a second, which take about a fifth of a core: however many there
are who wait, what is left is for those whose tokens are good."""


class Stall:
    """A queue in which everybody waits, and out of which come a few at a time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._queue: deque[tuple[float, Deferred[None]]] = deque()
        self._turning = False

    def __len__(self) -> int:
        """How many are in the queue, those included that have left since they came."""
        return len(self._queue)

    async def __call__(self) -> None:
        """Wait. Who leaves is cancelled, and takes nobody's place."""
        over: Deferred[None] = Deferred()
        self._queue.append((self._clock.seconds() + STALL, over))
        if not self._turning:
            self._turning = True
            self._clock.callLater(STALL, self._turn)
        await over

    def _turn(self) -> None:
        now, released = self._clock.seconds(), 0
        while self._queue and released < AT_ONCE and self._queue[0][0] <= now:
            _, over = self._queue.popleft()
            if not over.called:
                released += 1
                over.callback(None)
        self._turning = bool(self._queue)
        if self._turning:
            wait = max(self._queue[0][0] - now, TURN)
            self._clock.callLater(wait, self._turn)
