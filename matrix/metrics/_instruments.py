"""The objects that hot paths add to: plain numbers without locks, for one thread."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence


class _Number:
    """A number, either kept (C{number.value += 1}) or read from elsewhere at each scrape."""

    __slots__ = ("read", "value")

    def __init__(self) -> None:
        self.value: float = 0
        self.read: Callable[[], float] | None = None

    def current(self) -> float:
        """The number now; asks C{read} if there is one."""
        return self.value if self.read is None else self.read()


class Counter(_Number):
    """A number that only grows."""

    __slots__ = ()


class Gauge(_Number):
    """A number that comes and goes."""

    __slots__ = ()


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

    def observe_all(self, values: list[float]) -> None:
        """Note many measurements; their list is left sorted."""
        if not values:
            return
        values.sort()
        counts, before = self.counts, 0
        for number, bound in enumerate(self._bounds):
            upto = bisect_right(values, bound, before)
            counts[number] += upto - before
            before = upto
        counts[-1] += len(values) - before
        self.total += sum(values)
