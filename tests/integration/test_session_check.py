"""Sessions with open streams, asked about at a real issuer: a sign-out there ends them here."""

from __future__ import annotations

import time

from twisted.internet import reactor
from twisted.internet.task import deferLater

from matrix.auth import AuthApi, MemoryGate
from matrix.directory import MemoryDirectory
from matrix.metrics import Registry
from matrix.model import AccessChange, Principal
from matrix.router.recheck import Recheck
from tests.integration.test_issuer import ServedIssuerCase
from tests.router.world import ALICE

KEY = "sb_publishable_local"
INTERVAL = 0.6
"""Seconds, where five minutes are usual."""


class SessionCheckTests(ServedIssuerCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.issuer.api_key_wanted = KEY
        self.api = AuthApi(self.agent, self.issuer.url, KEY, reactor)
        self.gate = MemoryGate({}, time.time)
        self.store = MemoryDirectory(reactor)
        self.told: list[AccessChange | None] = []
        self.store.sessions.watch(self.told.append)
        self.streaming: list[str] = []

    async def begin(self, session: str) -> str:
        """A sign-in at the issuer that has a stream here."""
        grant = await self.api.password("alice@localhost", self.issuer.password("alice"))
        token = grant.access_token
        self.gate.accept(token.encode(), Principal(ALICE, session, time.time() + grant.life))
        await self.gate.verify(token.encode())
        self.streaming.append(session)
        return token

    async def check(self, api: AuthApi, seconds: float) -> None:
        """Have sessions checked for a while."""
        recheck = Recheck(
            reactor,
            self.streaming,
            self.gate,
            self.store.sessions,
            api.user,
            self.issuer.issuer,
            time.time,
            Registry(),
            INTERVAL,
        )
        recheck.start()
        try:
            await deferLater(reactor, seconds)
        finally:
            recheck.stop()

    async def test_a_sign_out_at_the_issuer_ends_the_session_here(self) -> None:
        phone, _ = await self.begin("phone"), await self.begin("laptop")
        await self.check(self.api, 2 * INTERVAL)
        self.assertEqual(self.told, [])
        await self.api.logout(phone)
        await self.check(self.api, 3 * INTERVAL)
        self.assertEqual(self.told, [AccessChange(session_id="phone")])

    async def test_a_user_who_is_banned_there(self) -> None:
        await self.begin("phone")
        self.issuer.user("alice").banned = True
        await self.check(self.api, 3 * INTERVAL)
        self.assertEqual(self.told, [AccessChange(session_id="phone")])

    async def test_a_wrong_api_key_ends_nothing(self) -> None:
        phone = await self.begin("phone")
        await self.api.logout(phone)
        wrong = AuthApi(self.agent, self.issuer.url, "wrong", reactor)
        await self.check(wrong, 3 * INTERVAL)
        self.assertEqual(self.told, [])
