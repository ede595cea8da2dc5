"""C{/-/logout}: ends a session at the issuer and here, and takes its cookies back."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.api import Answering
from matrix.auth import ApiRefusal, ApiUnreachable, AuthApi, Credential, Source
from matrix.directory import ISessions
from matrix.errors import Unauthorized
from matrix.http import Exchange, RequestHead
from matrix.model import UserId
from matrix.router.asking import query_of, reaching_the_directory
from matrix.router.bearings import Compass
from matrix.router.pages import LOG_OUT
from matrix.router.signin.cookie import take_back_all
from matrix.router.signin.form import check_own_form
from matrix.router.signin.sessions import BrowserSessions
from matrix.router.signin.views import Views
from matrix.router.validate import Validator

CAUSE = "sign-out"
"""What C{events} and C{sessions} say of a session that its user ended."""

_DONE = (b"Location", f"{LOG_OUT}?done=1".encode())
_NO_STORE = (b"Cache-Control", b"no-store")

_log = Logger()


class Leaving:
    """Signs people out."""

    def __init__(
        self,
        api: AuthApi | None,
        sessions: BrowserSessions | None,
        records: ISessions,
        validator: Validator,
        compass: Compass,
        views: Views,
    ) -> None:
        """
        @param api: the issuer's; C{None} if it cannot be asked.
        @param sessions: those of our own cookie, if there are any.
        """
        self._api = api
        self._sessions = sessions
        self._records = records
        self._validator = validator
        self._compass = compass
        self._views = views
        self._running: set[Deferred[None]] = set()

    def register(self, add: Callable[[str, str, Answering], None]) -> None:
        """Add the path to a table."""
        add("GET", LOG_OUT, self._show)
        add("POST", LOG_OUT, self._log_out)

    def stop(self) -> None:
        """Give up what is under way."""
        for running in list(self._running):
            running.cancel()

    def replaced(self, request: RequestHead) -> None:
        """End the session of our own that a browser had, for it gets another. Nobody waits."""
        handle = self._compass.places.ambient(request)
        if handle is not None and handle.source is Source.SESSION:
            self._run(self._end_own(handle.token))

    async def _show(self, exchange: Exchange) -> None:
        done = "done" in query_of(exchange.request)
        exchange.respond(200, *self._views.log_out(exchange.request_id, done=done))

    async def _log_out(self, exchange: Exchange) -> None:
        request = exchange.request
        places = self._compass.places
        if places.given(request) is None:  # a page can have cookies sent, but no token
            check_own_form(request, self._compass.origins)
        credential = None
        try:
            credential = self._validator.credential(request)
            await self._end(exchange, credential)
        except Unauthorized:
            pass  # it ended before; its cookies are there still
        cookies = take_back_all(request.get(b"cookie"), places.allows_set_cookie)
        if credential is not None and credential.source is Source.AUTHORIZATION:
            exchange.respond(204, [*cookies, _NO_STORE])
        else:
            exchange.respond(303, [*cookies, _DONE, _NO_STORE])

    async def _end(self, exchange: Exchange, credential: Credential) -> None:
        """
        End the session of a credential.

        @raise Unauthorized: it has none.
        @raise Unavailable: it could not be ended here.
        """
        if credential.source is Source.SESSION:
            await self._end_own(credential.token)
            return
        # The request itself is not noted to be this principal's, or it would be cut off, too.
        recalled = self._validator.recall(credential.token)
        principal = recalled or await self._validator.verify(exchange, credential)
        ended = await self._end_at_issuer(credential.token.decode("ascii"))
        await self._revoke(principal.session_id, principal.user_id, ended)

    async def _end_own(self, handle: bytes) -> None:
        found = None if self._sessions is None else await self._sessions.read(handle)
        if self._sessions is None or found is None:
            return
        sign_in, wallet = found
        ended = await self._end_at_issuer(wallet.access_token)
        await self._revoke(sign_in.session_id, sign_in.user_id, ended)
        await self._sessions.remove(sign_in)

    async def _revoke(self, session_id: str, user_id: UserId, ended: bool) -> None:
        with reaching_the_directory():
            await self._records.revoke(session_id, CAUSE, user_id, ended=ended)

    async def _end_at_issuer(self, token: str) -> bool:
        """Whether there can be no further token of its session."""
        if self._api is None:
            return False
        try:
            await self._api.logout(token)
        except ApiRefusal as error:
            return error.ends_session
        except ApiUnreachable as error:
            _log.warn("a session was ended here only: {error}", error=error)
            return False
        return True

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        running = Deferred.fromCoroutine(work)
        if not running.called:
            self._running.add(running)
            running.addBoth(self._over, running)
        running.addErrback(_failed)

    def _over(self, result: Any, running: Deferred[None]) -> Any:
        self._running.discard(running)
        return result


def _failed(failure: Failure) -> None:
    if not failure.check(CancelledError):  # type: ignore[no-untyped-call]
        _log.warn(
            "the session that a browser had before lives on: {error}",
            error=failure.getErrorMessage(),
        )
