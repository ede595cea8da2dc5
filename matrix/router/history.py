"""What a machine's past wakes teach: how long the next takes, and when to try one again. Pure."""

from __future__ import annotations

from matrix.directory import Past

WEIGHT = 0.3
"""Of the newer wake against all before it: recent ones count, one odd one does not."""

FIRST = 1.0
"""Seconds after a first failure in which no other attempt is made: most are over by then."""
LONGEST = 60.0
"""Seconds after the latest of many failures: a user who comes back later finds it tried anew."""


def estimate(past: Past, was: str) -> float | None:
    """
    Seconds that a wake takes; C{None} if nothing is known.

    @param was: the state that it begins in: from another one it may take ten times as long, so
        that those are counted only if there are no others.
    """
    alike = [seconds for state, seconds in past.wakes if state == was]
    seconds = None
    for newer in reversed(alike or [seconds for _, seconds in past.wakes]):
        seconds = newer if seconds is None else seconds + WEIGHT * (newer - seconds)
    return seconds


def pause(failures: int) -> float:
    """Seconds between the latest of so many failures in a row and the next attempt."""
    # The exponent is bounded, since there may have been thousands.
    return min(FIRST * 2 ** min(failures - 1, 10), LONGEST) if failures > 0 else 0.0


def still(past: Past) -> float:
    """Seconds from now in which no attempt is to be made."""
    return max(0.0, pause(past.failures) - past.failed_ago)
