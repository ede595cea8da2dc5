"""Browsers' sessions that the router looks after itself: C{__Host-matrix}."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.auth import Grant, Handles, IGate, Latchkey, Reason, refusal
from matrix.directory import DirectoryUnavailable, ISignIns
from matrix.errors import MatrixError, Unauthorized, Unavailable
from matrix.model import Principal, SignIn
from matrix.router.signin.cookie import LIFE, take_back
from matrix.router.signin.refresher import RETRY, Known, Refresher, SignedOutError
from matrix.router.signin.wallet import Wallet

MOST = 50_000
"""Sessions whose handles are remembered for their streams, about 20 MB; the one that was looked
up longest ago goes first."""

_REFRESHABLE = frozenset({Reason.EXPIRED.value, Reason.UNKNOWN_KEY.value, Reason.SIGNATURE.value})
"""What is wrong with a token that a newer one may not have: it is old, or so is its key."""

_log = Logger()


class BrowserSessions:
    """
    Turns session cookies into principals.

    A handle that was resolved is an alias of its access token at the gate until that is due
    to be refreshed. Then the next request begins the refresh, and goes on with the old token as
    long as it lives: nobody waits for the issuer who need not.
    """

    def __init__(
        self,
        gate: IGate,
        store: ISignIns,
        handles: Handles,
        refresher: Refresher,
        now: Callable[[], float],
    ) -> None:
        """
        @param now: the unix time, in seconds: C{time.time}.
        """
        self._gate = gate
        self._store = store
        self._handles = handles
        self._refresher = refresher
        self._now = now
        self._of_session: OrderedDict[str, bytes] = OrderedDict()
        """The latest handles, by their tokens' session."""
        self._session_of: dict[str, str] = {}
        """The sessions of those, by the sign-in's id."""

    async def begin(self, grant: Grant) -> tuple[bytes, Principal]:
        """
        A new session. There is never one that a browser brought along.

        @return: its handle, and whose it is.
        @raise Unauthorized: the token that was granted does not count here; says why.
        @raise Unavailable: the session cannot be kept now, or the token not be checked.
        """
        principal = await self._gate.verify(grant.access_token.encode())
        latchkey, wallet = Latchkey.new(), Wallet.of(grant, self._now())
        sealed, ends_at = wallet.seal(latchkey), self._now() + LIFE
        session = principal.session_id, principal.user_id
        try:
            await self._store.add(SignIn(latchkey.id, *session, sealed, ends_at))
        except DirectoryUnavailable:
            raise _no_directory() from None
        handle = self._handles.write(latchkey)
        self._remember(handle, latchkey.id, wallet, principal, wallet.due)
        return handle, principal

    async def resolve(self, handle: bytes) -> Principal:
        """
        Who signed in with the browser that has this handle.

        @raise Unauthorized: nobody, or the session is over: then the answer takes the cookie
            back.
        @raise Unavailable: it cannot be told now.
        """
        latchkey = self._handles.read(handle)
        if latchkey is None:
            raise signed_out()
        try:
            return await self._resolve(handle, latchkey)
        except SignedOutError:
            self._forget(latchkey.id)
            raise signed_out() from None
        except DirectoryUnavailable:
            return self._by_memory(handle, latchkey)
        except Unauthorized as error:
            raise _with_cookie_taken_back(error) from None

    async def renew(self, session_id: str) -> float | None:
        """
        Have newer tokens of a session whose cookie this process knows, if they are due.

        @return: until when they are good (unix seconds), C{None} if there are none.
        """
        handle = self._of_session.get(session_id)
        latchkey = None if handle is None else self._handles.read(handle)
        if handle is None or latchkey is None:
            return None
        try:
            known = await self._refresher.read(latchkey)
            if known.wallet.due <= self._now():
                known = await self._refresher.refreshed(latchkey, known)
            return (await self._accept(handle, latchkey, known)).expires_at
        except (SignedOutError, DirectoryUnavailable, MatrixError):
            return None

    async def read(self, handle: bytes) -> tuple[SignIn, Wallet] | None:
        """
        What a handle stands for, its access token refreshed if that is over; C{None} if it
        stands for nothing.

        @raise Unavailable: it cannot be told now.
        """
        latchkey = self._handles.read(handle)
        if latchkey is None:
            return None
        try:
            known = await self._refresher.read(latchkey)
            if known.wallet.due <= self._now():
                known = await self._still(latchkey, known)
        except SignedOutError:
            return None
        except DirectoryUnavailable:
            raise _no_directory() from None
        return known.row, known.wallet

    async def remove(self, sign_in: SignIn) -> None:
        """
        Forget a session.

        @raise Unavailable: the directory cannot be reached.
        """
        self._forget(sign_in.id)
        self._gate.forget(sign_in.session_id)
        try:
            await self._store.remove(sign_in.id)
        except DirectoryUnavailable:
            raise _no_directory() from None

    async def _resolve(self, handle: bytes, latchkey: Latchkey) -> Principal:
        known = await self._refresher.read(latchkey)
        token, now = known.wallet.access_token.encode(), self._now()
        try:
            principal = self._gate.recall(token) or await self._gate.verify(token)
        except Unauthorized as error:
            if error.reason not in _REFRESHABLE:
                raise
            known = await self._refresher.refreshed(latchkey, known)
            return await self._accept(handle, latchkey, known)
        if known.wallet.due > now:
            self._remember(handle, latchkey.id, known.wallet, principal, known.wallet.due)
        else:
            self._remember(handle, latchkey.id, known.wallet, principal, now + RETRY)
            ahead = Deferred.fromCoroutine(self._ahead(handle, latchkey, known))
            ahead.addErrback(_failed)
        return principal

    async def _ahead(self, handle: bytes, latchkey: Latchkey, known: Known) -> None:
        """Refresh while the old token still does."""
        try:
            known = await self._refresher.refreshed(latchkey, known)
            await self._accept(handle, latchkey, known)
        except SignedOutError:
            self._forget(latchkey.id)
            self._gate.forget(known.row.session_id)  # the next request is told
        except (DirectoryUnavailable, MatrixError):
            return  # the old token does until it expires, and each request tries again

    async def _accept(self, handle: bytes, latchkey: Latchkey, known: Known) -> Principal:
        principal = await self._gate.verify(known.wallet.access_token.encode())
        self._remember(handle, latchkey.id, known.wallet, principal, known.wallet.due)
        return principal

    async def _still(self, latchkey: Latchkey, known: Known) -> Known:
        try:
            return await self._refresher.refreshed(latchkey, known)
        except Unavailable:
            return known

    def _remember(
        self, handle: bytes, sign_in_id: str, wallet: Wallet, principal: Principal, until: float
    ) -> None:
        self._gate.alias(handle, wallet.access_token.encode(), until)
        self._of_session[principal.session_id] = handle
        self._of_session.move_to_end(principal.session_id)
        self._session_of[sign_in_id] = principal.session_id
        while len(self._of_session) > MOST:
            _, oldest = self._of_session.popitem(last=False)
            latchkey = self._handles.read(oldest)
            if latchkey is not None:
                self._session_of.pop(latchkey.id, None)

    def _forget(self, sign_in_id: str) -> None:
        session_id = self._session_of.pop(sign_in_id, None)
        if session_id is not None:
            self._of_session.pop(session_id, None)

    def _by_memory(self, handle: bytes, latchkey: Latchkey) -> Principal:
        """
        Who it was when the directory could be asked, for as long as their token lives.

        @raise Unavailable: that is not known.
        """
        session_id = self._session_of.get(latchkey.id)
        token = None if session_id is None else self._gate.token_of(session_id)
        principal = None if token is None else self._gate.recall(token)
        if token is None or principal is None:
            raise _no_directory()
        self._gate.alias(handle, token, self._now() + RETRY)
        return principal


def signed_out() -> Unauthorized:
    """The refusal of a session cookie that stands for nothing; takes the cookie back."""
    return _with_cookie_taken_back(refusal(Reason.SIGNED_OUT))


def _with_cookie_taken_back(error: Unauthorized) -> Unauthorized:
    headers = (*error.headers, take_back())
    return Unauthorized(error.detail, reason=error.reason, headers=headers)


def _no_directory() -> Unavailable:
    return Unavailable(
        "The directory cannot be reached, and sessions are kept there.",
        reason="directory",
        retry_after=2.0,
    )


def _failed(failure: Failure, *_: Any) -> None:
    if not failure.check(CancelledError):  # type: ignore[no-untyped-call]
        _log.failure("a session was not refreshed", failure=failure)
