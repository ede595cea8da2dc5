"""The sign-in links that embedded mode prints: each makes a session as a password does."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from matrix.api import Answering
from matrix.auth import Reason, refusal
from matrix.errors import Unauthorized, Unavailable
from matrix.http import Exchange
from matrix.metrics import Registry, series
from matrix.router.asking import query_of
from matrix.router.pages import local_target
from matrix.router.signin.clerk import Clerk, TroubleError
from matrix.router.signin.cookie import keep
from matrix.router.signin.leave import Leaving

_CHALLENGE = refusal(Reason.MISSING).headers  # each 401 has one: RFC 9110 section 15.5.2


@dataclass(frozen=True, slots=True)
class Account:
    """Who is signed in by a link, as if they had typed it."""

    email: str
    password: str = field(repr=False)


class SignInLinks:
    """Links that sign a user of embedded mode in; good for one run of the daemon."""

    def __init__(self, accounts: Mapping[str, Account]) -> None:
        """
        @param accounts: by each link's code.
        """
        self._accounts = dict(accounts)

    def redeem(self, code: str) -> Account | None:
        """Whose link has this code; C{None} if nobody's has."""
        found = None
        for known, account in self._accounts.items():
            if hmac.compare_digest(known.encode(), code.encode("utf-8", "replace")):
                found = account
        return found


class LinkDesk:
    """Signs people in with a link, and passes on who comes without one."""

    def __init__(
        self,
        links: SignInLinks,
        clerk: Clerk,
        leaving: Leaving,
        registry: Registry,
        otherwise: Answering,
    ) -> None:
        """
        @param leaving: ends the session that a browser had before.
        @param otherwise: answers who comes without a link.
        """
        self._links = links
        self._clerk = clerk
        self._leaving = leaving
        self._count = registry.counter
        self._otherwise = otherwise

    async def show(self, exchange: Exchange) -> None:
        """Answer at the place that links lead to."""
        query = query_of(exchange.request)
        code = query.get("code")
        if code is None or exchange.request.method != b"GET":
            await self._otherwise(exchange)
            return
        account = self._links.redeem(code)
        if account is None:
            self._count(series.SIGN_INS, "link", "wrong").value += 1
            raise Unauthorized(
                "This sign-in link is not valid (any more). Use the one that the server "
                "printed when it started last.",
                reason="sign-in-code",
                headers=_CHALLENGE,
            )
        try:
            handle = await self._clerk.with_password(account.email, account.password)
        except TroubleError as error:
            self._count(series.SIGN_INS, "link", error.trouble.outcome).value += 1
            raise Unavailable(error.trouble.text, reason="sign-in-service") from None
        self._count(series.SIGN_INS, "link", "good").value += 1
        self._leaving.replaced(exchange.request)
        exchange.respond(
            303,
            [
                keep(handle),
                (b"Location", local_target(query.get("next", "/")).encode()),
                # The code must not leak to whatever the machine's page links to.
                (b"Referrer-Policy", b"no-referrer"),
                (b"Cache-Control", b"no-store"),
            ],
        )
