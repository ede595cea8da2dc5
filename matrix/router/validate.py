"""Step 4 of the way: who sent a request, and whether they may send it so (DESIGN, section 2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from matrix.auth import UNDERSCORE, Credential, Failures, IGate, Reason, Source, refusal
from matrix.errors import TooManyRequests, Unauthorized
from matrix.http import Exchange, RequestHead
from matrix.metrics import Registry, series
from matrix.model import Principal
from matrix.router.bearings import Compass
from matrix.router.tickets import Tickets, is_ticket


class Validator:
    """Turns what a request shows of its sender into a principal, or a refusal."""

    def __init__(
        self,
        gate: IGate,
        registry: Registry,
        failures: Failures,
        stall: Callable[[], Awaitable[None]],
        compass: Compass,
        tickets: Tickets,
        session: Callable[[bytes], Awaitable[Principal]] | None = None,
    ) -> None:
        """
        @param failures: whose tokens were refused so often that they are not looked at.
        @param stall: makes those wait before they are told so, and in a flood everybody
            who is refused: one who could ask again at once would have the whole process busy
            with saying no.
        @param compass: where credentials may be, and which pages may use them.
        @param session: whom our session cookie speaks for; by default it holds a token.
        """
        self._bearings = compass.bearings
        self._places = compass.places
        self._origins = compass.origins
        self._verifiers: dict[Source, Callable[[bytes], Awaitable[Principal]]] = dict.fromkeys(
            Source, gate.verify
        )
        """Who can tell whom a credential speaks for, by where it was found."""
        self._verifiers[Source.TICKET] = tickets.redeem
        if session is not None:
            self._verifiers[Source.SESSION] = session
        self._registry = registry
        self._failures = failures
        self.check: Callable[[Principal], None] = _anybody
        """Raises a L{MatrixError} for those whose credential is good, but no longer counts."""
        self._stall = stall
        self.recall = gate.recall
        """The principal of a credential that was found good before; see L{IGate.recall}."""

    def credential(self, request: RequestHead) -> Credential:
        """
        What the request shows, if it may: not yet verified.

        @raise BadRequest: there are two credentials.
        @raise Forbidden: a page of another origin sent the user's cookie.
        @raise Unauthorized: there is none.
        """
        credential = self._bearings(request).given
        if credential is None:
            credential = self._in_query(request)
        if credential is None:
            credential = self._ambient(request)
        return credential

    def _in_query(self, request: RequestHead) -> Credential | None:
        if UNDERSCORE not in request.target:
            return None
        credential = self._places.in_query(request.target)
        if credential is None or credential.source is not Source.TICKET:
            return credential
        stream = request.wants_websocket or b"text/event-stream" in (request.get(b"accept") or b"")
        if not stream or not is_ticket(credential.token):
            raise self._refused(refusal(Reason.TICKET))
        return credential

    def _ambient(self, request: RequestHead) -> Credential:
        credential = self._bearings(request).ambient
        if credential is None:
            raise self._refused(refusal(Reason.MISSING))
        fields = request.fields
        upgrade = fields.upgrade is not None
        self._origins.check(request.method, request.get(b"origin"), fields.host, upgrade)
        return credential

    async def principal(self, exchange: Exchange) -> Principal:
        """
        Who sent a request.

        @raise BadRequest, Forbidden, TooManyRequests, Unauthorized: nobody who may.
        @raise Unavailable: it cannot be told now.
        """
        credential = self.credential(exchange.request)
        principal = self.recall(credential.token) or await self.verify(exchange, credential)
        exchange.story.principal = principal
        return principal

    async def verify(self, exchange: Exchange, credential: Credential) -> Principal:
        """
        Whom a credential speaks for that is not recalled.

        @raise Blocked, Gone: somebody who may not come in any more.
        @raise Unauthorized: nobody.
        @raise TooManyRequests: it is not even looked at, for too many of the same address
            were refused.
        @raise Unavailable: it cannot be told now.
        """
        wait = self._failures.wait(exchange.peer)
        if wait:
            await self._stall()
            raise self._limited(wait)
        try:
            principal = await self._verifiers[credential.source](credential.token)
            self.check(principal)
        except Unauthorized as error:
            self._failures.failed(exchange.peer)
            if self._failures.flooded():
                await self._stall()
            raise self._refused(error) from None
        self._registry.counter(series.AUTH, "verified").value += 1
        return principal

    def _limited(self, wait: float) -> TooManyRequests:
        self._registry.counter(series.AUTH, "limited").value += 1
        return TooManyRequests(
            "Too many tokens from your address were refused; try again later.",
            reason="auth-failures",
            retry_after=wait,
        )

    def _refused(self, error: Unauthorized) -> Unauthorized:
        self._registry.counter(series.AUTH, error.reason or "unknown").value += 1
        return error


def _anybody(principal: Principal) -> None:
    return
