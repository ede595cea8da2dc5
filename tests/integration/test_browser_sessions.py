"""Sessions of our own over a real issuer and a real database: races, and two routers on both."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.web.client import Agent

from matrix.auth import AuthApi, Handles, Issuer, JwksKeys, Policy, TokenGate
from matrix.directory import PostgresDirectory, open_directory
from matrix.errors import Unauthorized, Unavailable
from matrix.metrics import Registry
from matrix.model import Principal
from matrix.router.signin.refresher import Refresher
from matrix.router.signin.sessions import BrowserSessions
from matrix.testing import postgres
from matrix.testing.issuer import Fault
from tests.integration.test_issuer import ServedIssuerCase

MASTER = "m" * 40
LIFE = 4.0
"""Seconds that tokens live: due after two."""


class Router:
    """As much of a router as looks after sessions."""

    def __init__(self, owner: str, directory: PostgresDirectory, url: str, iss: str) -> None:
        agent = Agent(reactor)  # type: ignore[no-untyped-call]
        self.directory = directory
        self.keys = JwksKeys(agent, f"{url}/.well-known/jwks.json", reactor, time.time)
        policy = Policy(iss, "authenticated", "authenticated", leeway=0.0)
        self.gate = TokenGate([Issuer(policy, self.keys)], time.time)
        self.api = AuthApi(agent, url, "", reactor)
        store = directory.sign_ins
        self.refresher = Refresher(store, self.api, reactor, time.time, owner, Registry())
        self.sessions = BrowserSessions(
            self.gate, store, Handles(MASTER), self.refresher, time.time
        )

    async def sign_in(self, password: str) -> bytes:
        handle, _ = await self.sessions.begin(await self.api.password("alice@localhost", password))
        return handle

    def ask(self, handle: bytes) -> Deferred[Principal]:
        """As a request does."""

        async def asking() -> Principal:
            return self.gate.recall(handle) or await self.sessions.resolve(handle)

        return Deferred.fromCoroutine(asking())


class BrowserSessionTests(ServedIssuerCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.issuer.life = LIFE
        self.dsn = postgres.fresh_database()
        self.addCleanup(postgres.drop_database, self.dsn)
        self.routers = [await self.router(f"router:{number}") for number in (1, 2)]
        self.handle = await self.routers[0].sign_in(self.issuer.password("alice"))

    async def router(self, owner: str) -> Router:
        directory = await open_directory(reactor, self.dsn)
        self.addCleanup(lambda: Deferred.fromCoroutine(directory.close()))
        router = Router(owner, directory, self.issuer.url, self.issuer.issuer)
        self.addCleanup(router.keys.stop)
        await router.keys.start()
        return router

    @property
    def granted(self) -> int:
        """Sign-ins and refreshes."""
        return self.issuer.requests["/token"]

    async def all_at_once(self, each: int) -> list[Principal]:
        asked = [router.ask(self.handle) for router in self.routers for _ in range(each)]
        return list(await gatherResults(asked))

    async def let_pass(self, seconds: float) -> None:
        await deferLater(reactor, seconds)  # type: ignore[arg-type]

    async def test_at_the_moment_of_refresh_one_of_forty_asks_the_issuer(self) -> None:
        before = await self.all_at_once(1)
        await self.let_pass(LIFE / 2 + 0.1)
        during = await self.all_at_once(20)
        self.assertEqual({found.session_id for found in during}, {before[0].session_id})
        await self.let_pass(0.5)
        after = await self.all_at_once(1)
        self.assertEqual(self.granted, 2)
        self.assertGreater(after[0].expires_at, before[0].expires_at)
        self.assertEqual(after[0].session_id, before[0].session_id)

    async def test_when_all_has_expired_forty_wait_for_one(self) -> None:
        await self.let_pass(LIFE + 0.1)
        found = await self.all_at_once(20)
        self.assertEqual(len({principal.expires_at for principal in found}), 1)
        self.assertGreater(found[0].expires_at, time.time())
        self.assertEqual(self.granted, 2)

    async def test_a_slow_issuer_keeps_nobody_who_has_a_token(self) -> None:
        await self.let_pass(LIFE / 2 + 0.1)
        self.issuer.fault, self.issuer.delay = Fault.SLOW, 1.0
        began = time.monotonic()
        await self.all_at_once(10)
        self.assertLess(time.monotonic() - began, 0.7)
        await self.let_pass(1.5)
        self.assertEqual(self.granted, 2)

    async def test_an_outage_is_lived_through(self) -> None:
        self.issuer.fault = Fault.ERROR
        await self.let_pass(LIFE / 2 + 0.1)
        await self.all_at_once(2)
        await self.let_pass(LIFE / 2)
        await self.assertFailure(self.routers[0].ask(self.handle), Unavailable)
        self.issuer.fault = Fault.NONE
        await self.all_at_once(2)

    async def test_a_session_that_was_ended_at_the_issuer_is_over(self) -> None:
        [found] = [await self.routers[0].ask(self.handle)]
        self.issuer.sessions.end(found.session_id)
        await self.let_pass(LIFE + 0.1)
        for router in self.routers:
            error: Any = await self.assertFailure(router.ask(self.handle), Unauthorized)
            self.assertEqual(error.reason, "signed-out")
        [[rows]] = postgres.execute("SELECT count(*) FROM sign_ins", self.dsn)
        self.assertEqual(rows, 0)

    async def test_what_the_database_holds_is_no_token(self) -> None:
        [[sealed]] = postgres.execute("SELECT sealed FROM sign_ins", self.dsn)
        assert isinstance(sealed, memoryview)
        for part in (b"eyJ", b"access", b"refresh", b"alice"):
            self.assertNotIn(part, bytes(sealed))
