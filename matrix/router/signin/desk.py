"""C{/-/signin}: shows the form, takes what it sends, and sends people on with a session."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from math import ceil

from matrix.api import Answering
from matrix.auth import Reason, refusal
from matrix.errors import NotFound, TooManyRequests, Unauthorized
from matrix.http import Exchange
from matrix.metrics import Registry, series
from matrix.model import Principal
from matrix.router.asking import query_of
from matrix.router.pages import Page, local_target
from matrix.router.signin import troubles
from matrix.router.signin.attempts import Attempts, TooManyError
from matrix.router.signin.clerk import Clerk, TroubleError
from matrix.router.signin.cookie import keep
from matrix.router.signin.form import check_own_form, read_form
from matrix.router.signin.leave import Leaving
from matrix.router.signin.troubles import Trouble
from matrix.router.signin.views import SIGN_IN, Views, Wanted

_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,189}")
_BETWEEN_DIGITS = re.compile(r"[\s-]+")

_NO_STORE = (b"Cache-Control", b"no-store")
_CHALLENGE = refusal(Reason.MISSING).headers  # each 401 has one: RFC 9110 section 15.5.2


class SignInDesk:
    """Signs people in with what they type; with MATRIX_LOGIN=builtin."""

    def __init__(
        self,
        clerk: Clerk,
        attempts: Attempts,
        views: Views,
        leaving: Leaving,
        identify: Callable[[Exchange], Awaitable[Principal]],
        registry: Registry,
    ) -> None:
        """
        @param leaving: ends the session that a browser had before.
        @param identify: who sent a request; raises a L{MatrixError}.
        """
        self._clerk = clerk
        self._attempts = attempts
        self._views = views
        self._leaving = leaving
        self._identify = identify
        self._registry = registry

    def register(self, add: Callable[[str, str, Answering], None]) -> None:
        """Add what the form is sent to, to a table."""
        add("POST", SIGN_IN, self._take)

    async def show(self, exchange: Exchange) -> None:
        """The form; who is signed in already goes on."""
        target = local_target(query_of(exchange.request).get("next", "/"))
        try:
            await self._identify(exchange)
        except (Unauthorized, TooManyRequests) as error:
            # A cookie that is worth nothing goes.
            cookies = [field for field in error.headers if field[0] == b"Set-Cookie"]
            headers, body = self._views.sign_in(exchange.request_id, Wanted(target))
            exchange.respond(200, [*headers, *cookies], body)
            return
        on = "/" if target.startswith(SIGN_IN) else target  # or it would lead here again
        exchange.respond(303, [(b"Location", on.encode()), _NO_STORE])

    async def _take(self, exchange: Exchange) -> None:
        check_own_form(exchange.request)
        given = await read_form(exchange)
        wanted = Wanted(local_target(given.get("next", "/")), given.get("email", "").strip())
        ways = {"password": self._password, "send": self._send, "code": self._code}
        way = given.get("how", "password")
        take = ways.get(way)
        if take is None:
            raise NotFound("There is no such way to sign in.", reason="how")
        try:
            await take(exchange, wanted, given)
        except TroubleError as error:
            self._refuse(exchange, wanted, error.trouble, way)

    async def _password(self, exchange: Exchange, wanted: Wanted, given: dict[str, str]) -> None:
        email, password = _checked(wanted.email), given.get("password", "")
        if not password:
            raise TroubleError(troubles.NO_PASSWORD)
        handle = await self._try(exchange, self._clerk.with_password, email, password)
        await self._let_in(exchange, handle, wanted.target, "password")

    async def _code(self, exchange: Exchange, wanted: Wanted, given: dict[str, str]) -> None:
        email, code = _checked(wanted.email), _BETWEEN_DIGITS.sub("", given.get("code", ""))
        if not (code.isascii() and code.isalnum()):
            raise TroubleError(troubles.NO_CODE)
        account = email.lower()
        handle = await self._try(exchange, self._clerk.with_code, email, code, account=account)
        await self._let_in(exchange, handle, wanted.target, "code")

    async def _send(self, exchange: Exchange, wanted: Wanted, given: dict[str, str]) -> None:
        email = _checked(wanted.email)
        try:
            with self._attempts.one(exchange.peer):
                self._attempts.failed(exchange.peer)  # each costs a message
                await self._clerk.send_code(email)
        except TooManyError as error:
            raise TroubleError(troubles.too_many(error.seconds)) from None
        self._count("send", "good")
        headers, body = self._views.code(exchange.request_id, wanted)
        exchange.respond(200, headers, body)

    async def _try(
        self,
        exchange: Exchange,
        sign_in: Callable[[str, str], Awaitable[bytes]],
        email: str,
        secret: str,
        account: str = "",
    ) -> bytes:
        try:
            with self._attempts.one(exchange.peer, account):
                return await sign_in(email, secret)
        except TooManyError as error:
            raise TroubleError(troubles.too_many(error.seconds)) from None
        except TroubleError as error:
            if error.trouble.outcome == "wrong":
                self._attempts.failed(exchange.peer, account)
            raise

    async def _let_in(self, exchange: Exchange, handle: bytes, target: str, way: str) -> None:
        self._count(way, "good")
        self._leaving.replaced(exchange.request)
        location = (b"Location", target.encode())
        exchange.respond(303, [keep(handle), location, _NO_STORE])

    def _refuse(self, exchange: Exchange, wanted: Wanted, trouble: Trouble, way: str) -> None:
        self._count(way, trouble.outcome)
        page = self._page(exchange, wanted, trouble, way)
        answer(exchange, trouble, page)

    def _page(self, exchange: Exchange, wanted: Wanted, trouble: Trouble, way: str) -> Page:
        if way == "code" and trouble.field != "email":
            return self._views.code(exchange.request_id, wanted, trouble)
        return self._views.sign_in(exchange.request_id, wanted, trouble)

    def _count(self, way: str, outcome: str) -> None:
        self._registry.counter(series.SIGN_INS, way, outcome).value += 1


def answer(exchange: Exchange, trouble: Trouble, page: Page) -> None:
    """Answer with a page that tells of trouble."""
    headers, body = page
    fields = [*headers]
    if trouble.status == 401:
        fields += _CHALLENGE
    if trouble.retry_after is not None:
        fields.append((b"Retry-After", b"%d" % max(1, ceil(trouble.retry_after))))
    exchange.close_reason = trouble.outcome
    exchange.respond(trouble.status, fields, body)


def _checked(email: str) -> str:
    if not _EMAIL.fullmatch(email):
        raise TroubleError(troubles.NO_EMAIL)
    return email
