"""Watches the event loop: how late does it run what is due?"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from matrix.metrics.interfaces import Measured

INTERVAL = 0.1
"""Seconds between checks: often enough to catch a stall of a few tens of milliseconds once
in a while, at no cost that can be measured (10 timers a second)."""


class LoopLag:
    """Measures at a fixed interval by how much a timer runs late."""

    def __init__(self, clock: IReactorTime, lag: Measured) -> None:
        self._clock = clock
        self._lag = lag
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to measure; to start twice changes nothing."""
        if self._call is None:
            self._schedule()

    def stop(self) -> None:
        """Measure no more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self) -> None:
        due = self._clock.seconds() + INTERVAL
        self._call = self._clock.callLater(INTERVAL, self._check, due)

    def _check(self, due: float) -> None:
        self._lag.observe(max(0.0, self._clock.seconds() - due))
        self._schedule()
