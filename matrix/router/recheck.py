"""Recheck: asks the issuer now and then whether sessions with open streams still are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from random import uniform

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.auth import ApiRefusal, ApiUnreachable, IGate, issuer_of
from matrix.directory import DirectoryUnavailable, ISessions
from matrix.metrics import Registry, series
from matrix.router.idle import Periodic

INTERVAL = 300.0
"""Seconds between two questions about one session (C{MATRIX_SESSION_CHECK})."""

SWEEPS = 60
"""Looks within that time at who is due: the questions are spread evenly over it."""

AT_ONCE = 8
"""Questions under way at the same time."""

MARGIN = 15.0
"""Seconds that a token must have left: of one that expires meanwhile the issuer would tell no more
than that. Longer than a question may take."""

PAUSE = 30.0
"""Seconds without questions when the issuer cannot be reached, or has had enough of us."""

CAUSE = "issuer"
"""Why a session was revoked, in the directory."""

TOO_MANY = 429
"""The status of an issuer that was asked too often."""

BANNED = "user_banned"
"""The only one of the issuer's codes that leaves a session as it is."""

_log = Logger()


class Recheck:
    """
    Asks about each session that has streams in this process.

    Only what the issuer says clearly counts: that the session or its user is no more. Then the
    session is revoked in the directory, and with that at all routers.
    """

    def __init__(
        self,
        clock: IReactorTime,
        streaming: Iterable[str],
        gate: IGate,
        sessions: ISessions,
        ask: Callable[[str], Awaitable[None]],
        issuer: str,
        now: Callable[[], float],
        registry: Registry,
        interval: float = INTERVAL,
    ) -> None:
        """
        @param streaming: the sessions that have streams, whenever it is gone through.
        @param ask: see L{matrix.auth.AuthApi.user}.
        @param issuer: the C{iss} of the tokens that it can be asked about.
        @param now: the unix time, in seconds: C{time.time}.
        """
        self._clock = clock
        self._streaming = streaming
        self._gate = gate
        self._sessions = sessions
        self._ask = ask
        self._issuer = issuer
        self._now = now
        self._registry = registry
        self._interval = interval
        self._due: dict[str, float] = {}
        """When each session is to be asked about next, by the clock."""
        self._under_way: dict[str, Deferred[None]] = {}
        self._few = DeferredSemaphore(AT_ONCE)
        self._resumes_at = 0.0
        self._sweeping = Periodic(clock, interval / SWEEPS, self._sweep)

    def start(self) -> None:
        """Begin."""
        self._sweeping.start()

    def stop(self) -> None:
        """Ask no more."""
        self._sweeping.stop()
        for asking in list(self._under_way.values()):
            asking.cancel()

    async def _sweep(self) -> None:
        """Ask about those that are due; routers that started together do not ask together."""
        time, before = self._clock.seconds(), self._due
        self._due = {
            session_id: before.get(session_id) or time + uniform(0, self._interval)  # noqa: S311
            for session_id in self._streaming
        }
        for session_id, due in self._due.items():
            if due <= time and session_id not in self._under_way:
                self._begin(session_id)

    def _begin(self, session_id: str) -> None:
        asking: Deferred[None] = self._few.run(
            lambda: Deferred.fromCoroutine(self._look_into(session_id))
        )
        if not asking.called:
            self._under_way[session_id] = asking
            asking.addBoth(self._ended, session_id)
        asking.addErrback(_failed)

    def _ended(self, result: object, session_id: str) -> object:
        self._under_way.pop(session_id, None)
        return result

    async def _look_into(self, session_id: str) -> None:
        token = self._gate.token_of(session_id)
        left = self._gate.newest(session_id) - self._now()
        if session_id not in self._due or self._clock.seconds() < self._resumes_at:
            return
        if token is None or left < MARGIN:
            return  # it is about to expire, or a newer one is coming
        self._due[session_id] = self._clock.seconds() + self._interval
        if issuer_of(token) == self._issuer:
            outcome = await self._verdict(session_id, token)
            self._registry.counter(series.SESSION_CHECKS, outcome).value += 1

    async def _verdict(self, session_id: str, token: bytes) -> str:
        try:
            await self._ask(token.decode("ascii"))
        except ApiUnreachable as error:
            self._rest(f"{error}", PAUSE)
            return "unreachable"
        except ApiRefusal as refusal:
            if refusal.ends_session:
                return await self._revoke(session_id, refusal.code)
            if refusal.status == TOO_MANY or not refusal.code:  # its gateway, not itself
                self._rest(f"{refusal}", refusal.retry_after or PAUSE)
            return "refused"
        return "good"

    async def _revoke(self, session_id: str, code: str) -> str:
        _log.info("the issuer says {code}: session revoked", code=code)
        try:
            # A ban may be lifted, and the session go on.
            await self._sessions.revoke(session_id, CAUSE, ended=code != BANNED)
        except DirectoryUnavailable as error:
            _log.warn("a session that ended is asked about again: {error}", error=error)
            self._due[session_id] = self._clock.seconds()
            return "unrecorded"
        return "ended"

    def _rest(self, why: str, seconds: float) -> None:
        """Leave the issuer alone for a while; who was due stays so."""
        if self._clock.seconds() >= self._resumes_at:
            _log.warn("sessions are not checked for {seconds:g} s: {why}", seconds=seconds, why=why)
        self._resumes_at = self._clock.seconds() + seconds


def _failed(failure: Failure) -> None:
    if not failure.check(CancelledError):  # type: ignore[no-untyped-call]
        _log.failure("a session was not checked", failure=failure)
