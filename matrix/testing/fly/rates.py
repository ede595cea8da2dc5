"""Fly's rate limits, as Fly keeps them: whoever calls too often gets 429. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from matrix.machines._fly_rates import Rate

SWEEP_SIZE = 4096
"""Buckets from which on full ones are dropped, at each doubling."""


class Rates:
    """A bucket of tokens for each action and what it is done to."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._buckets: dict[Hashable, tuple[float, float, Rate]] = {}
        self._sweep_at = SWEEP_SIZE

    def take(self, key: Hashable, rate: Rate) -> float:
        """
        @return: 0 if the call may be made, else the seconds until it may.
        """
        now = self._now()
        tokens = self._tokens(key, rate, now)
        if tokens < 1:
            self._buckets[key] = tokens, now, rate
            return (1 - tokens) / rate.per_second
        self._buckets[key] = tokens - 1, now, rate
        if len(self._buckets) > self._sweep_at:
            self._sweep(now)
        return 0.0

    def clear(self) -> None:
        """All buckets are full."""
        self._buckets.clear()

    def _tokens(self, key: Hashable, rate: Rate, now: float) -> float:
        if key not in self._buckets:
            return float(rate.burst)
        tokens, at, _ = self._buckets[key]
        return min(float(rate.burst), tokens + (now - at) * rate.per_second)

    def _sweep(self, now: float) -> None:
        kept = {
            key: bucket
            for key, bucket in self._buckets.items()
            if self._tokens(key, bucket[2], now) < bucket[2].burst
        }
        self._buckets = kept
        self._sweep_at = max(SWEEP_SIZE, 2 * len(kept))
