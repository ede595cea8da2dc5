"""What a room needs in order to count: objects resolved once, then only added to."""

from __future__ import annotations

from typing import Protocol


class Counted(Protocol):
    """Counts events; C{counted.value += n} is the whole of its use."""

    value: float


class Measured(Protocol):
    """Takes measurements into fixed buckets."""

    def observe(self, value: float) -> None:
        """Note one measurement, in the unit that the series' name ends with."""
