"""Sightings: tells the directory of each token that was found good, so that all routers know."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.directory import DirectoryUnavailable, ISessions
from matrix.model import Principal, UserId

DELAY = 1.0
"""Seconds in which sightings are gathered for one statement. A stream that another router has
open for the session is closed a grace after its own token, and the grace is longer."""

RETRY = 2.0
"""Seconds until the next attempt while the directory cannot be reached."""

MOST = 50_000
"""Sessions that wait to be told of, as many as the gate remembers tokens; the oldest are dropped
first, since theirs expire first."""

_log = Logger()


class Sightings:
    """Gathers and tells; an outage of the directory delays it, and costs no request anything."""

    def __init__(self, clock: IReactorTime, sessions: ISessions) -> None:
        self._clock = clock
        self._sessions = sessions
        self._seen: dict[str, tuple[UserId, float]] = {}
        self._timer: IDelayedCall | None = None
        self._telling: Deferred[None] | None = None

    def __len__(self) -> int:
        """How many sessions wait to be told of."""
        return len(self._seen)

    def seen(self, principal: Principal) -> None:
        """A token was found good; see L{matrix.auth.IGate.subscribe}."""
        self._note({principal.session_id: (principal.user_id, principal.expires_at)})
        self._plan(DELAY)

    async def stop(self) -> None:
        """Tell what is left, once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._telling is not None:
            await self._telling
        if self._seen:
            await self._tell()
        if self._timer is not None:  # it could not be told
            self._timer.cancel()
            self._timer = None

    def _note(self, seen: Mapping[str, tuple[UserId, float]]) -> None:
        for session_id, sighting in seen.items():
            known = self._seen.get(session_id)
            if known is None or known[1] < sighting[1]:
                self._seen[session_id] = sighting
        while len(self._seen) > MOST:
            del self._seen[next(iter(self._seen))]

    def _plan(self, seconds: float) -> None:
        if self._timer is None and self._telling is None:
            self._timer = self._clock.callLater(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        self._telling = telling = Deferred.fromCoroutine(self._tell())
        if telling.called:
            self._telling = None
        telling.addErrback(_failed)

    async def _tell(self) -> None:
        seen, self._seen = self._seen, {}
        delay = DELAY
        try:
            await self._sessions.note(seen)
        except DirectoryUnavailable as error:
            _log.warn("{count} sessions are noted later: {error}", count=len(seen), error=error)
            self._note(seen)
            delay = RETRY
        finally:
            self._telling = None
            if self._seen:
                self._plan(delay)


def _failed(failure: Failure) -> None:
    """Not tried again: what the directory does not take now it would not take later."""
    _log.failure("sessions that were seen are not noted", failure=failure)
