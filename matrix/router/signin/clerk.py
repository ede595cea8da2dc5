"""What is behind the sign-in form: passwords and codes tried, sessions begun."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.auth import ApiRefusal, ApiUnreachable, AuthApi, Grant
from matrix.errors import Unauthorized, Unavailable
from matrix.router.signin import troubles
from matrix.router.signin.sessions import BrowserSessions
from matrix.router.signin.troubles import Trouble

CODE_PAUSE = 1.0
"""Seconds that it takes to have a code mailed, whether there is such an account or not: how
long the sign-in service takes tells which."""

_log = Logger()


class TroubleError(Exception):
    """A sign-in did not succeed."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.text)
        self.trouble = trouble


class Clerk:
    """Signs people in; each failure is a L{TroubleError}."""

    def __init__(self, api: AuthApi, sessions: BrowserSessions, clock: IReactorTime) -> None:
        self._api = api
        self._sessions = sessions
        self._clock = clock
        self._mailing: set[Deferred[None]] = set()

    def stop(self) -> None:
        """Give up what is under way."""
        for mailing in list(self._mailing):
            mailing.cancel()

    async def with_password(self, email: str, password: str) -> bytes:
        """The handle of a new session."""
        return await self._sign_in(self._api.password(email, password))

    async def with_code(self, email: str, code: str) -> bytes:
        """The handle of a new session, for a code that was mailed."""
        return await self._sign_in(self._api.verify_code(email, code))

    async def send_code(self, email: str) -> None:
        """
        Have a code mailed, if there is such an account. Nothing tells whether there is.
        """
        mailing: Deferred[None] = Deferred.fromCoroutine(self._api.send_code(email))
        failures: list[Failure] = []
        mailing.addErrback(failures.append)
        self._mailing.add(mailing)
        mailing.addBoth(lambda _: self._mailing.discard(mailing))
        await deferLater(self._clock, CODE_PAUSE)
        for failure in failures:
            error = failure.value
            if isinstance(error, ApiRefusal):
                if not troubles.tells_of_account(error):
                    raise _trouble(troubles.of_refusal(error), error)
            elif isinstance(error, ApiUnreachable):
                raise _trouble(troubles.UNREACHABLE, error)
            elif not isinstance(error, CancelledError):
                failure.raiseException()

    async def _sign_in(self, granting: Awaitable[Grant]) -> bytes:
        try:
            grant = await granting
        except ApiRefusal as error:
            raise _trouble(troubles.of_refusal(error), error) from None
        except ApiUnreachable as error:
            raise _trouble(troubles.UNREACHABLE, error) from None
        try:
            handle, _ = await self._sessions.begin(grant)
        except Unauthorized as error:
            await self._abandon(grant)
            raise _trouble(troubles.of_token(error), error) from None
        except Unavailable as error:
            await self._abandon(grant)
            known = error.reason == "directory"
            trouble = troubles.NOT_KEPT if known else troubles.UNREACHABLE
            raise _trouble(trouble, error) from None
        return handle

    async def _abandon(self, grant: Grant) -> None:
        """Leave no session behind at the sign-in service that nobody knows of."""
        try:
            await self._api.logout(grant.access_token)
        except (ApiRefusal, ApiUnreachable) as error:
            _log.warn("a session that does not count could not be ended: {error}", error=error)


def _trouble(trouble: Trouble, error: Exception) -> TroubleError:
    if trouble.operator or trouble.status == 503:
        _log.warn("nobody can sign in so: {error} ({text})", error=error, text=trouble.text)
    return TroubleError(trouble)
