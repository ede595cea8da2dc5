"""Rights: who may come in no more, and the end of what they have under way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.auth import IGate, Reason, refusal
from matrix.directory import DirectoryUnavailable, IDirectory
from matrix.errors import MatrixError
from matrix.http import FORBIDDEN, UNAUTHORIZED, Exchange
from matrix.metrics import Registry, series
from matrix.model import AccessChange, Principal, UserId, UserState
from matrix.router.rousing import not_admitted

BATCH = 500
"""Requests and streams ended in one go: some tens of milliseconds. There is no time to lose, since
a blocked user's machine is put to sleep meanwhile, but others are to have their turns too."""

PAUSE = 0.005
"""Seconds between two batches."""

RETRY = 1.0
"""Seconds until the next attempt to learn what changed while nobody was listening."""

REFRESH_INTERVAL = 3600.0
"""Seconds until what is known is read anew, so that sessions whose tokens have all expired are
not remembered for ever."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a right ended."""

    reason: str
    """For the access log, the metric, and the client of a WebSocket."""
    code: int
    """What a WebSocket is closed with."""
    error: Callable[[], MatrixError]
    """Makes what a request is answered."""


REVOKED = Loss(Reason.REVOKED.value, UNAUTHORIZED, partial(refusal, Reason.REVOKED))
LOSSES = {
    state: Loss(state.value, FORBIDDEN, partial(not_admitted, state))
    for state in (UserState.BLOCKED, UserState.DELETED)
}


class Rights:
    """
    Knows which sessions were revoked and which users blocked or deleted, as far as that concerns
    this process, and cuts off who is among them.

    A user is only known of from when their state changes under our eyes: before that, nothing of
    theirs is under way, and a wake asks the directory (L{matrix.router.rousing}).
    """

    def __init__(
        self,
        clock: IReactorTime,
        gate: IGate,
        directory: IDirectory,
        users: Callable[[], Iterable[UserId]],
        exchanges: Callable[[], Iterable[Exchange]],
        registry: Registry,
    ) -> None:
        """
        @param users: those who may have something under way.
        @param exchanges: what is under way.
        """
        self._clock = clock
        self._gate = gate
        self._directory = directory
        self._users = users
        self._exchanges = exchanges
        self._registry = registry
        self._revoked: set[str] = set()
        self._states: dict[UserId, UserState] = {}
        self._lost: set[str | UserId] = set()
        """The users and sessions whose requests and streams are to be ended."""
        self._cutting = False
        self._running: set[Deferred[None]] = set()
        self._asking = DeferredLock()
        self._heard: list[AccessChange] | None = None
        """What the directory told of while it was being asked."""

    async def start(self) -> None:
        """Learn who may not come in, and listen from now on."""
        self._directory.sessions.watch(self._changed)
        await self.refresh()

    def stop(self) -> None:
        """Give up what is under way."""
        for running in list(self._running):
            running.cancel()

    def check(self, principal: Principal) -> None:
        """
        Whether somebody whose token is good may come in, as far as is known.

        @raise Blocked, Gone, Unauthorized: they may not.
        """
        loss = self._loss(principal, self._states, self._revoked)
        if loss is not None:
            self._gate.forget_user(principal.user_id)  # or the token would be recalled from now on
            raise loss.error()

    # what the directory tells

    def _changed(self, change: AccessChange | None) -> None:
        if change is None:
            self._run(self.refresh(), "who may come in is not known for sure")
            return
        if self._heard is not None:
            self._heard.append(change)
        self._apply(change)
        if change.user_id is not None:
            self._cut_lost()
        else:  # of a user's sessions many may be revoked at once
            self._clock.callLater(0, self._cut_lost)

    def _apply(self, change: AccessChange) -> None:
        if change.session_id is not None:
            self._revoke(change.session_id)
        if change.user_id is None:
            return
        if change.cause is not None:
            self._sign_out(change.user_id, change.cause)
            return
        if change.state in LOSSES:
            self._expel(change.user_id, change.state)
        else:
            self._states.pop(change.user_id, None)

    def _revoke(self, session_id: str) -> None:
        self._gate.bar(session_id)
        self._revoked.add(session_id)
        self._lost.add(session_id)

    def _sign_out(self, user_id: UserId, cause: str) -> None:
        """All sessions of a user were revoked that are on record: so are those that were seen
        here, and are to be noted in a moment."""
        for session_id in set(self._gate.sessions_of(user_id)) - self._revoked:
            self._revoke(session_id)
            revoking = partial(self._directory.sessions.revoke, session_id, cause, user_id)
            self._run(self._persist(revoking), "a session that was just seen is not revoked")

    async def _persist(self, revoking: Callable[[], Awaitable[object]]) -> None:
        """Have it written down, however long the directory cannot be reached."""
        while True:
            try:
                await revoking()
            except DirectoryUnavailable:
                await deferLater(self._clock, RETRY)
            else:
                return

    def _expel(self, user_id: UserId, state: UserState) -> None:
        self._gate.forget_user(user_id)
        self._states[user_id] = state
        self._lost.add(user_id)

    # learning it all

    async def refresh(self) -> None:
        """Learn from the directory who may not come in, however long it cannot be reached."""
        await self._asking.acquire()
        try:
            while not await self._learned():
                await deferLater(self._clock, RETRY)
        finally:
            self._heard = None
            self._asking.release()

    async def _learned(self) -> bool:
        heard: list[AccessChange] = []
        self._heard = heard
        try:
            revoked = set(await self._directory.sessions.revoked())
            states = await self._directory.not_active({*self._users(), *self._states})
        except DirectoryUnavailable as error:
            _log.warn("who may come in is asked again: {error}", error=error)
            return False
        self._replace(revoked, states, heard)
        return True

    def _replace(
        self, revoked: set[str], states: Mapping[UserId, UserState], heard: list[AccessChange]
    ) -> None:
        """
        Take over what the directory said.

        @param heard: what it told of since it was asked, which is newer.
        """
        revoked |= {change.session_id for change in heard if change.session_id is not None}
        self._lost |= revoked - self._revoked
        self._revoked = revoked
        self._gate.bar_all(revoked)
        before, self._states = self._states, {}
        for user_id, state in states.items():
            self._states[user_id] = state
            if before.get(user_id) != state:
                self._expel(user_id, state)
        for change in heard:
            self._apply(change)
        self._cut_lost()

    # cutting

    def _cut_lost(self) -> None:
        """End what the lost have under way."""
        if self._lost and not self._cutting:
            self._cutting = True
            self._run(self._cut_all(), "requests and streams were not ended")

    async def _cut_all(self) -> None:
        try:
            while self._lost:
                lost, self._lost = self._lost, set()
                await self._cut(lost)
        finally:
            self._cutting = False

    async def _cut(self, lost: Collection[str | UserId]) -> None:
        states = {user: state for user, state in self._states.items() if user in lost}
        revoked = {session for session in self._revoked if session in lost}
        meant = []
        for exchange in self._exchanges():
            principal = getattr(exchange.story, "principal", None)
            if principal is not None:
                loss = self._loss(principal, states, revoked)
                if loss is not None:
                    meant.append((exchange, loss))
        for count, (exchange, loss) in enumerate(meant, 1):
            self._end(exchange, loss)
            if count % BATCH == 0:
                await deferLater(self._clock, PAUSE)

    def _end(self, exchange: Exchange, loss: Loss) -> None:
        if exchange.gone or (exchange.over and exchange.stream is None):
            return  # by itself, while others were ended
        kind = exchange.stream.kind if exchange.stream is not None else "http"
        try:
            exchange.cut(loss.error(), loss.code)
        except Exception:  # noqa: BLE001 -- one that cannot be ended must not save the others
            _log.failure("cannot end a request properly")
            exchange.abort()
        self._registry.counter(series.RIGHTS_LOST, kind, loss.reason).value += 1

    @staticmethod
    def _loss(
        principal: Principal, states: Mapping[UserId, UserState], revoked: Collection[str]
    ) -> Loss | None:
        state = states.get(principal.user_id)
        if state is not None:
            return LOSSES[state]
        return REVOKED if principal.session_id in revoked else None

    def _run(self, work: Coroutine[Any, Any, None], failing: str) -> None:
        running = Deferred.fromCoroutine(work)
        if not running.called:
            self._running.add(running)
            running.addBoth(self._ended, running)
        running.addErrback(_failed, failing)

    def _ended(self, result: Any, running: Deferred[None]) -> Any:
        self._running.discard(running)
        return result


def _failed(failure: Failure, what: str) -> None:
    if not failure.check(CancelledError):  # type: ignore[no-untyped-call]
        _log.failure(what, failure=failure)
