"""Which sessions were ended before their tokens: a set that cannot grow for ever."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import takewhile

BAR_LIFE = 401 * 86400.0
"""Seconds for which a session stays barred: a day more than a browser keeps the cookie with its
refresh token, which goes on getting new tokens of the session from the issuer."""


class Bars:
    """The barred sessions, the oldest bar first."""

    def __init__(self, now: Callable[[], float]) -> None:
        """
        @param now: the unix time, in seconds.
        """
        self._now = now
        self._since: dict[str, float] = {}

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._since

    def __len__(self) -> int:
        return len(self._since)

    def add(self, session_id: str) -> None:
        """Bar one more."""
        now = self._now()
        over = takewhile(lambda item: item[1] + BAR_LIFE <= now, self._since.items())
        for oldest, _ in list(over):
            del self._since[oldest]
        self._since.pop(session_id, None)
        self._since[session_id] = now

    def replace(self, session_ids: Collection[str]) -> None:
        """Bar these and no others."""
        self._since = dict.fromkeys(session_ids, self._now())
