"""Users whose machines could not be woken, and are not tried again for a while."""

from __future__ import annotations

from math import ceil

from twisted.internet.interfaces import IReactorTime

from matrix.errors import MatrixError, Unavailable
from matrix.model import UserId

MOMENT = 0.01
"""Seconds that are not worth a refusal."""

PAUSED = "paused"
"""The reason of a refusal because an attempt failed just now."""

FAILURES = frozenset({"provider", "no-answer", "died", PAUSED})
"""Reasons after which another attempt at once would hardly do better."""

PRESSING = frozenset({"operator"})
"""Causes for which there is no pause: somebody has seen to what was wrong."""


def paused(seconds: float) -> Unavailable:
    """What those are told who come too early."""
    return Unavailable(
        f"The machine could not be started. It is tried again in {ceil(seconds)} s, if somebody"
        " asks for it then.",
        reason=PAUSED,
        retry_after=seconds,
    )


class Pauses:
    """
    Spares the directory the questions of those who do not wait. What counts is in its events:
    this is forgotten as soon as a machine's row changes.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._until: dict[UserId, float] = {}

    def note(self, user_id: UserId, error: MatrixError) -> None:
        """An attempt ended so."""
        if error.reason in FAILURES and error.retry_after:
            self._until[user_id] = self._clock.seconds() + error.retry_after
        else:
            self.forget(user_id)

    def forget(self, user_id: UserId | None) -> None:
        """Something happened to this user's machine, or C{None}: perhaps to any."""
        if user_id is None:
            self._until.clear()
        else:
            self._until.pop(user_id, None)

    def check(self, user_id: UserId) -> Unavailable | None:
        """Why there is no attempt for this user now, if there is none."""
        until = self._until.get(user_id)
        if until is None:
            return None
        left = until - self._clock.seconds()
        if left < MOMENT:
            del self._until[user_id]
            return None
        return paused(left)
