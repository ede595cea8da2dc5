"""What the daemon answers while its data are on their way home: not yet, and how far it is."""

from __future__ import annotations

import re

from matrix.daemon.home import Home
from matrix.errors import Unavailable
from matrix.http.interfaces import Exchange, Handler

RETRY_AFTER = 1.0
"""Seconds: the router asks often, and people should not wait longer than they must."""

_UNFIT = re.compile(r"[^\x20-\x7e]|;")
"""What cannot stand in the field's value."""


class Threshold:
    """A handler of requests that is there before the daemon's own, and then hands on to it."""

    def __init__(self) -> None:
        self._inside: Handler | None = None
        self._home: Home | None = None
        self.waiting = ""
        """Why nothing moves, in one sentence; empty while something does."""

    def open(self, inside: Handler) -> None:
        """From now on that handler answers."""
        self._inside = inside

    def watch(self, home: Home) -> None:
        """Tell how far it is."""
        self._home = home

    def __call__(self, exchange: Exchange) -> None:
        """
        See L{matrix.http.interfaces.Handler}.

        @raise Unavailable: the data are not home.
        """
        if self._inside is None:
            raise self._not_yet()
        self._inside(exchange)

    def _not_yet(self) -> Unavailable:
        home = self._home
        if self.waiting:
            state = f"restoring; waiting={_UNFIT.sub(',', self.waiting)[:200]}"
            detail = f"your data are being restored; that must wait: {self.waiting}"
        else:
            done, total = (home.done(), home.total) if home is not None else (0, 0)
            state = f"restoring; done={done}; total={total}"
            detail = "your data are being restored from their newest snapshot"
        return Unavailable(
            detail,
            reason="restoring",
            retry_after=RETRY_AFTER,
            headers=[(b"matrix-machine", state.encode("ascii"))],
        )
