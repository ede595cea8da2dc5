"""The objects that hot paths add to: plain numbers without locks, for one thread."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence


class Counter:
    """A number that only grows: C{counter.value += 1}."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Gauge:
    """A number that comes and goes, either set (C{gauge.value += 1}) or read at each scrape."""

    __slots__ = ("read", "value")

    def __init__(self) -> None:
        self.value: float = 0
        self.read: Callable[[], float] | None = None

    def current(self) -> float:
        """The value now; asks C{read} if there is one."""
        return self.value if self.read is None else self.read()


class Histogram:
    """
    Measurements counted in fixed buckets.

    A measurement belongs to the first bucket whose bound it does not exceed, and to the
    last, unbounded one if it exceeds them all.
    """

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self.counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Note one measurement."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value
