"""Answers that somebody has to wait for, so that asking again at once gains nothing."""

from __future__ import annotations

from math import inf

from twisted.internet.defer import Deferred

from matrix.net import IWheel

STALL = 1.0
"""Seconds: a client on one connection asks once in that time then, instead of ten thousand
times; a person who has mistaken something hardly notices."""


class Stall:
    """Makes its callers wait, all equally long."""

    def __init__(self, wheel: IWheel, seconds: float = STALL) -> None:
        """
        @param seconds: how long; a tick or two more, as the wheel is coarse.
        """
        self._wheel = wheel
        self._seconds = seconds
        self.waiting = 0
        """How many are waiting now."""

    async def __call__(self) -> None:
        """Wait; a caller that has left is cancelled, and forgotten at once."""
        waiter = _Waiter()
        self._wheel.arm(waiter, self._seconds)
        self.waiting += 1
        try:
            await waiter.over
        finally:
            self.waiting -= 1
            waiter.deadline = inf


class _Waiter:
    """One deadline on the wheel."""

    __slots__ = ("deadline", "over", "wheel_due")

    def __init__(self) -> None:
        self.deadline = inf
        self.wheel_due = inf
        self.over: Deferred[None] = Deferred()

    def expired(self) -> None:
        self.over.callback(None)
