"""When a worker that ended is started again, and when one that is silent is given up. Pure."""

from __future__ import annotations

STEADY = 60.0
"""Seconds: a worker that lived so long did not die of its start; the next one starts at once."""
FIRST_DELAY = 0.5
"""Seconds before the second start in a row; doubled for each further one."""
LONGEST_DELAY = 30.0
"""Seconds: what is broken for longer than a minute should not fill the log."""

SILENCE_CHECKS = 30
"""Looks, a second apart, without a sign of life after which a worker hangs. Nothing of ours holds
the loop for a second; a stopped or starved host may. Looks are counted instead of seconds, so that
a supervisor that was itself held up does not blame the workers."""
QUIET_CHECKS = 3
"""The same after which others accept in its stead: whoever connects should not wait for a worker
that may hang."""
START_CHECKS = 60
"""The same for a worker that starts: it reaches the database first, on a busy machine."""


class Patience:
    """What is known of one worker's place, from one process in it to the next."""

    def __init__(self) -> None:
        self._early = 0
        self._silent = 0
        self._limit = START_CHECKS

    def started(self) -> None:
        """A process was started in this place."""
        self._silent, self._limit = 0, START_CHECKS

    def ready(self) -> None:
        """It serves."""
        self._silent, self._limit = 0, SILENCE_CHECKS

    def heard(self) -> None:
        """It gave a sign of life."""
        self._silent = 0

    @property
    def quiet(self) -> bool:
        """Whether nothing was heard of it for a moment."""
        return self._silent > QUIET_CHECKS

    def looked(self) -> bool:
        """A second has passed, by our own loop. Whether the process hangs."""
        self._silent += 1
        return self._silent > self._limit

    def ended(self, lived: float) -> float:
        """
        The process ended.

        @param lived: for how many seconds it ran.
        @return: after how many seconds to start the next one.
        """
        if lived >= STEADY:
            self._early = 0
        early, self._early = self._early, self._early + 1
        return min(FIRST_DELAY * 2.0 ** (early - 1), LONGEST_DELAY) if early else 0.0
