"""The gate as the settings make it: issuers, secret and choices, with keys over real HTTP."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from matrix.auth import TokenGate
from matrix.errors import ConfigurationError, Unauthorized
from matrix.metrics import Registry, series
from matrix.router.supplies import Supplies
from matrix.router.trust import KEPT, Trust, kept_as
from matrix.settings import Settings, load
from matrix.testing.issuer import Fault, LocalIssuer

OTHER = "https://b.example/auth/v1"
CLIENT = str(uuid4())


class TrustTests(TestCase):
    async def setUp(self) -> None:
        self.top = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.top)
        self.state = self.top / "state"
        self.issuer = await self.listening("main")
        self.registry = Registry()

    async def listening(self, name: str, **options: Any) -> LocalIssuer:
        issuer = LocalIssuer.open(self.top / name, **options)
        await issuer.listen(reactor)
        self.addCleanup(issuer.close)
        return issuer

    def settings(self, **given: object) -> Settings:
        environment = {f"MATRIX_{name.upper()}": str(value) for name, value in given.items()}
        with mock.patch.dict(os.environ, environment, clear=True):
            return load(state_dir=str(self.state))

    async def gate(self, **given: object) -> TokenGate:
        self.trust = trust = Trust(reactor, self.settings(**given), self.registry)
        self.addCleanup(trust.stop)
        issuer, url = self.issuer.issuer, self.issuer.jwks_url
        return await trust.open(Supplies("", issuer, url, "m" * 40, None))

    async def reason(self, gate: TokenGate, user: str = "alice", **changes: Any) -> str | None:
        """The code of the refusal; C{None} if the token is accepted."""
        try:
            await gate.verify(self.issuer.mint(user, **changes).encode())
        except Unauthorized as error:
            return error.reason
        return None

    async def test_what_nobody_chose(self) -> None:
        gate = await self.gate()
        secret = self.issuer.legacy_secret
        self.assertIsNone(await self.reason(gate))
        self.assertEqual(await self.reason(gate, alg="HS256", secret=secret), "algorithm")
        self.assertEqual(await self.reason(gate, client_id=CLIENT), "client")
        self.assertEqual(await self.reason(gate, is_anonymous=True), "anonymous")
        self.assertIsNone(await self.reason(gate, aal="aal1"))
        self.assertIsNone(await self.reason(gate, life=-29))
        self.assertEqual(await self.reason(gate, life=-31), "expired")

    async def test_each_choice(self) -> None:
        secret = self.issuer.legacy_secret.decode()
        gate = await self.gate(
            jwt_secret=secret,
            oauth_clients=f"{uuid4()}, {CLIENT}",
            anonymous_users="true",
            require_aal2="true",
            audience="mine",
            role="member",
            token_leeway=5,
        )
        good = {"aud": "mine", "role": "member", "aal": "aal2"}
        self.assertIsNone(await self.reason(gate, **good))
        hmac = {"alg": "HS256", "secret": secret.encode()}
        self.assertIsNone(await self.reason(gate, **good, **hmac))
        self.assertIsNone(await self.reason(gate, **good, client_id=CLIENT))
        self.assertIsNone(await self.reason(gate, **good, is_anonymous=True))
        for changes, reason in (
            ({"aal": "aal1"}, "assurance"),
            ({"aud": "authenticated"}, "audience"),
            ({"role": "authenticated"}, "role"),
            ({"client_id": str(uuid4())}, "client"),
            ({"life": -6}, "expired"),
        ):
            self.assertEqual(await self.reason(gate, **{**good, **changes}), reason)

    async def test_a_further_issuer(self) -> None:
        other = await self.listening("other", issuer=OTHER)
        given = [{"issuer": OTHER, "jwks_url": other.jwks_url, "audience": "b"}]
        gate = await self.gate(other_issuers=json.dumps(given))
        self.assertIsNone(await self.reason(gate))
        await gate.verify(other.mint("alice", aud="b").encode())
        with self.assertRaises(Unauthorized) as caught:
            await gate.verify(other.mint("alice").encode())
        self.assertEqual(caught.exception.reason, "audience")
        (named,) = self.settings(other_issuers=json.dumps(given)).other_issuers
        self.assertEqual(sorted(os.listdir(self.state)), sorted([KEPT, kept_as(named)]))

    async def test_an_issuer_that_is_down_keeps_nobody_of_the_others_out(self) -> None:
        given = [{"issuer": OTHER, "jwks_url": "http://127.0.0.1:9/"}]
        gate = await self.gate(other_issuers=json.dumps(given))
        self.assertIsNone(await self.reason(gate))

    async def test_an_issuer_configured_twice(self) -> None:
        with self.assertRaises(ConfigurationError):
            await self.gate(other_issuers=json.dumps([{"issuer": self.issuer.issuer}]))

    async def test_a_start_without_the_issuer(self) -> None:
        await self.gate()
        self.trust.stop()
        self.issuer.fault = Fault.ERROR
        gate = await self.gate()
        self.assertIsNone(await self.reason(gate))

    async def test_a_start_does_not_wait_with_young_keys(self) -> None:
        await self.gate()
        self.trust.stop()
        self.issuer.fault, self.issuer.delay = Fault.SLOW, 3600.0
        gate = await self.gate()
        self.assertIsNone(await self.reason(gate))

    async def test_a_project_with_a_secret_only(self) -> None:
        self.issuer.fault = Fault.EMPTY
        secret = self.issuer.legacy_secret.decode()
        gate = await self.gate(jwt_secret=secret)
        hmac = {"alg": "HS256", "secret": secret.encode(), "header": {"kid": None}}
        self.assertIsNone(await self.reason(gate, **hmac))
        self.assertEqual(await self.reason(gate), "unknown-key")
        self.assertEqual(self.fetches("good"), 1)

    def fetches(self, outcome: str) -> float:
        counter = self.registry.counter(series.JWKS_FETCHES, self.issuer.issuer, outcome)
        return counter.current()

    async def test_series(self) -> None:
        gate = await self.gate()
        token = self.issuer.mint("alice").encode()
        await gate.verify(token)
        self.assertEqual([self.fetches(each) for each in ("good", "unusable")], [1, 0])
        self.assertEqual(self.registry.number(series.TOKENS), 1)
        self.assertGreater(self.registry.number(series.TOKEN_BYTES), len(token))
        age = self.registry.number(series.JWKS_AGE_SECONDS, self.issuer.issuer)
        self.assertTrue(0 <= age < 60, age)
        text = self.registry.render()[1].decode()
        self.assertIn('matrix_jwks_fetches_total{issuer="http://localhost/auth/v1"', text)
