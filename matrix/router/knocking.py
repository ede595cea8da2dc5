"""
Knocking: asking a machine that comes up whether it answers yet, flatly, and once more wherever
a packet may have been lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from matrix.http import Backend, Health, examine

INTERVAL = 0.01
"""Seconds between two questions to a machine that refuses them: flat, since a wake is short and
each step of a back-off would be felt."""
PER_SECOND = 1000.0
"""Questions of one process: each takes some 0.15 ms, and a crowd that wakes must leave time for
all else. What the provider tells is asked for at once all the same."""
SELDOM = 0.5
"""Seconds between two questions, however many machines come up."""
ANSWER_SECONDS = 2.0
"""For an answer on a connection that stands: a machine that is swapping in gets through."""
ANSWER_AGAIN = 0.1
"""Seconds after which to ask on another connection as well; doubled each time."""
CONNECT_SECONDS = 1.0
"""After which a connection that does not come about is given up: the system sends its second
packet then, and others of ours were sent since."""
GROWTH = 1.25
"""By how much longer each further connection is waited for before the next: what is known of the
way may be wrong."""
RESTORING_AGAIN = 0.2
"""Seconds until a machine that restores its data is asked again."""


class RoundTrips:
    """How long it takes to the machines of a place and back, as their connections tell."""

    UNKNOWN = 0.25
    """Seconds to wait for an answer before there is any measurement: across an ocean and back."""
    LEAST = 0.03
    """Seconds: what our own loop may be late."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, float]] = {}

    def note(self, place: str, seconds: float) -> None:
        """A connection took so long; smoothed as TCP does it (RFC 6298 section 2)."""
        if place not in self._known:
            self._known[place] = seconds, seconds / 2
            return
        mean, deviation = self._known[place]
        deviation += (abs(seconds - mean) - deviation) / 4
        self._known[place] = mean + (seconds - mean) / 8, deviation

    def limit(self, place: str) -> float:
        """Seconds after which a packet to there, or back, was lost."""
        if place not in self._known:
            return self.UNKNOWN
        mean, deviation = self._known[place]
        return min(max(mean + 4 * deviation, self.LEAST), CONNECT_SECONDS)


class Knocks:
    """What all who knock in one process share."""

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.trips = RoundTrips()
        self.under_way = 0

    @property
    def interval(self) -> float:
        """Seconds between two questions of each."""
        return min(max(INTERVAL, self.under_way / PER_SECOND), SELDOM)


@dataclass(eq=False)
class _Visit:
    began: float
    connected: bool = False
    running: Deferred[Health | None] = field(default_factory=Deferred)


class Knocking:
    """Asks one machine until it serves."""

    def __init__(
        self, knocks: Knocks, backend: Backend, place: str, told: Callable[[bytes], None]
    ) -> None:
        """
        @param place: where the machine is; those of one place are equally far.
        @param told: called with what it says of itself while it does not serve yet.
        """
        self.answered: Deferred[None] = Deferred(lambda _: self._end())
        """Fires when it serves. Cancel it to ask no more."""
        self._knocks = knocks
        self._clock = knocks.clock
        self._backend = backend
        self._place = place
        self._told = told
        self._visits: list[_Visit] = []
        self._timer: IDelayedCall | None = None
        self._limit = knocks.trips.limit(place)
        self._longest = max(4 * self._limit, RoundTrips.UNKNOWN)
        self._again = ANSWER_AGAIN
        self._over = False
        knocks.under_way += 1
        self._knock()

    def nudge(self) -> None:
        """It is said to run: ask now, whatever is waited for."""
        if not self._over and not any(visit.connected for visit in self._visits):
            self._knock()

    def _knock(self) -> None:
        now = self._clock.seconds()
        for visit in list(self._visits):
            if not visit.connected and now - visit.began >= CONNECT_SECONDS:
                visit.running.cancel()
        self._arm(max(self._limit, self._knocks.interval))
        self._limit = min(self._limit * GROWTH, self._longest)
        visit = _Visit(now)
        self._visits.append(visit)
        asking = examine(self._backend, ANSWER_SECONDS, partial(self._connected, visit))
        visit.running = Deferred.fromCoroutine(asking)
        visit.running.addBoth(self._heard, visit)
        # What comes of it now is an error of ours, and ends the wake.
        visit.running.addErrback(self._failed)

    def _connected(self, visit: _Visit) -> bool:
        visit.connected = True
        self._knocks.trips.note(self._place, self._clock.seconds() - visit.began)
        self._arm(self._again)
        self._again = min(self._again * 2, ANSWER_SECONDS)
        return not self._over

    def _heard(self, answer: Health | Failure | None, visit: _Visit) -> Failure | None:
        self._visits.remove(visit)
        if self._over:
            return None
        if isinstance(answer, Failure):
            if not answer.check(CancelledError):  # type: ignore[no-untyped-call]
                return answer
        elif answer is not None and answer.ready:
            self._end()
            self.answered.callback(None)
        elif answer is not None:
            self._told(answer.state)
            self._arm(RESTORING_AGAIN)
        elif not self._visits:
            passed = self._clock.seconds() - visit.began
            self._arm(max(0.0, self._knocks.interval - passed))
        return None

    def _failed(self, failure: Failure) -> None:
        self._end()
        self.answered.errback(failure)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if self._over else self._clock.callLater(seconds, self._knock)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._knocks.under_way -= 1
            self._arm(0.0)
            for visit in list(self._visits):
                visit.running.cancel()
