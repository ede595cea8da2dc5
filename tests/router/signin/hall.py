"""A router in memory where people sign in: its own parts in earnest, and an issuer's twin."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from matrix.auth import ApiRefusal, AuthApi, Grant, Handles
from matrix.model import Principal
from matrix.router.signin.links import Account, SignInLinks
from matrix.router.signin.reception import Login, OwnSessions, Reception
from matrix.router.signin.refresher import Refresher
from matrix.router.signin.sessions import BrowserSessions
from tests.router.world import ALICE, BOB, Client, World

PASSWORD = "correct horse battery staple"
CODE = "123456"
LINK = "the-code-of-a-sign-in-link"
EMAILS = {"alice@example.org": ALICE, "bob@example.org": BOB}
LIFE = 3600.0
MASTER = "m" * 40

FORM = "application/x-www-form-urlencoded"


class Issuer(AuthApi):
    """The API of an issuer in memory. What it grants, its routers' gates accept."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.accept: list[Callable[[bytes, Principal], None]] = []
        self.life = LIFE
        self.asked: list[str] = []
        """What it was asked, the latest last."""
        self.ended: list[str] = []
        """The sessions that were signed out."""
        self.failure: Exception | None = None
        """What it answers everything with instead."""
        self.held: list[Deferred[None]] | None = None
        """Answers that wait for L{answer}, if it is to be slow."""
        self._refresh_tokens: dict[str, Principal] = {}
        self._access_tokens: dict[str, str] = {}

    async def password(self, email: str, password: str) -> Grant:
        await self._ask("password")
        if email not in EMAILS or password != PASSWORD:
            raise ApiRefusal(400, "invalid_credentials")
        return self._begin(email)

    async def send_code(self, email: str) -> None:
        await self._ask("send")
        if email not in EMAILS:
            raise ApiRefusal(422, "otp_disabled")

    async def verify_code(self, email: str, code: str) -> Grant:
        await self._ask("verify")
        if email not in EMAILS or code != CODE:
            raise ApiRefusal(403, "otp_expired")
        return self._begin(email)

    async def refresh(self, refresh_token: str) -> Grant:
        await self._ask("refresh")
        principal = self._refresh_tokens.pop(refresh_token, None)
        if principal is None or principal.session_id in self.ended:
            raise ApiRefusal(400, "refresh_token_not_found")
        return self._grant(principal)

    async def logout(self, access_token: str) -> None:
        await self._ask("logout")
        self.ended.append(self._access_tokens[access_token])

    def count(self, what: str) -> int:
        """How often it was asked that."""
        return self.asked.count(what)

    def answer(self) -> None:
        """Give all answers that wait."""
        held, self.held = self.held or [], None
        for waiting in held:
            waiting.callback(None)

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.held is not None:
            waiting: Deferred[None] = Deferred()
            self.held.append(waiting)
            await waiting
        if self.failure is not None:
            raise self.failure

    def _begin(self, email: str) -> Grant:
        return self._grant(Principal(EMAILS[email], str(uuid4()), 0.0, email))

    def _grant(self, principal: Principal) -> Grant:
        now = self.clock.seconds()
        mine = Principal(principal.user_id, principal.session_id, now + self.life, principal.email)
        grant = Grant(f"access-{uuid4()}", f"refresh-{uuid4()}", self.life)
        self._refresh_tokens[grant.refresh_token] = mine
        self._access_tokens[grant.access_token] = mine.session_id
        for accept in self.accept:
            accept(grant.access_token.encode(), mine)
        return grant


class Hall(World):
    """A router with sign-in. Several may share a directory and an issuer."""

    def __init__(
        self,
        login: Login = Login("builtin"),  # noqa: B008 -- frozen
        within: Hall | None = None,
        **options: Any,
    ) -> None:
        self._login = login
        self._within = within
        super().__init__(within=within, **options)

    def _receive(self) -> Reception:
        self.issuer = self._within.issuer if self._within else Issuer(self.clock)
        self.issuer.accept.append(self.gate.accept)
        store = self.directory.sign_ins
        clock, now = self.clock, self.clock.seconds
        owner = f"router:{len(self.issuer.accept)}"
        self.refresher = Refresher(store, self.issuer, clock, now, owner, self.registry)
        handles = Handles(MASTER)
        self.sessions = BrowserSessions(self.gate, store, handles, self.refresher, now)
        own = OwnSessions(self.issuer, self.refresher, self.sessions)
        return Reception(clock, self.registry, self.directory, self._login, own)  # type: ignore[arg-type]

    # what a person does

    def browse(self, target: str = "/", cookie: str = "", **more: str) -> Client:
        """Open a page."""
        if cookie:
            more["Cookie"] = cookie
        return self.ask(target, token=None, Sec_Fetch_Mode="navigate", Accept="text/html", **more)

    def send(
        self, fields: dict[str, str], target: str = "/-/signin", cookie: str = "", **more: str
    ) -> Client:
        """Send a form."""
        body = urlencode(fields).encode()
        headers = {
            "Origin": "https://door",
            "Content_Type": FORM,
            "Content_Length": str(len(body)),
            **more,
        }
        if cookie:
            headers["Cookie"] = cookie
        given = {name: value for name, value in headers.items() if value}
        return self.ask(target, method="POST", token=None, body=body, **given)

    def sign_in(self, email: str = "alice@example.org", **more: str) -> str:
        """The cookie of a new session."""
        client = self.send({"email": email, "password": PASSWORD, "how": "password"}, **more)
        assert client.status == 303, client.body
        return cookie_of(client)

    def who(self, cookie: str) -> Any:
        """The answer to a program of a page that asks who is signed in."""
        return self.ask("/-/session", token=None, Cookie=cookie)


def cookie_of(client: Client) -> str:
    """What an answer has a browser send from now on."""
    return client.headers["set-cookie"].partition(";")[0]


def text_of(client: Client) -> str:
    """What a page says, tags left out."""
    page = re.sub(r"<style>.*?</style>", "", client.body.decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def links() -> SignInLinks:
    """One for alice."""
    return SignInLinks({LINK: Account("alice@example.org", PASSWORD)})
