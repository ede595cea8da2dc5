"""When snapshots are due: evenly, apart from each other, less often while they fail. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_RETRY = 30.0
"""Seconds after a first failure: a machine that was just restarted, a store away for a moment."""

LONGEST_RETRY = 3600.0
"""Seconds: what an operator has to mend is tried again within an hour of being mended."""

SPREAD = 0.2
"""The share by which a time varies, so that those who came together do not stay together."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the next snapshot of a machine in use is due."""

    interval: float
    """Seconds between two."""

    def first(self, chance: float) -> float:
        """
        Seconds from now to the first one of a machine that was just woken: at any time within an
        interval, for many may have been woken at once, and never more than one behind.

        @param chance: evenly from 0 to 1, as of all methods here.
        """
        return self.interval * (SPREAD + (1 - SPREAD) * chance)

    def next(self, chance: float) -> float:
        """Seconds from one that was taken to the next: at most an interval."""
        return self.interval * (1 - SPREAD * chance)

    def retry(self, failures: int, chance: float, *, worth_it: bool = True) -> float:
        """
        Seconds from a failure to the next attempt: each failure in a row doubles them.

        @param failures: in a row, this one included.
        @param worth_it: whether another attempt may go better by itself.
        """
        if not worth_it:
            return LONGEST_RETRY * (1 - SPREAD * chance)
        doubled: float = FIRST_RETRY * 2.0 ** min(max(failures, 1) - 1, 10)
        return min(doubled, LONGEST_RETRY) * (1 - SPREAD * chance)
