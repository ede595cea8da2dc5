"""The local issuer and the gate over real HTTP: sign-in, outage, rotation, a flood of forgeries."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from matrix.auth import JwksKeys, Policy, TokenGate
from matrix.auth._keys import THROTTLE
from matrix.errors import Unauthorized, Unavailable
from matrix.testing.issuer import Fault, LocalIssuer


class ServedIssuerCase(TestCase):
    """With an issuer that listens, and a client without any connection left open."""

    async def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.issuer = LocalIssuer.open(self.directory / "issuer")
        await self.issuer.listen(reactor)
        self.addCleanup(self.close_issuer)
        self.agent = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
        self.http = HTTPClient(self.agent)

    async def close_issuer(self) -> None:
        await self.issuer.close()

    async def call(
        self, method: str, path: str, token: str | None = None, **options: Any
    ) -> tuple[int, Any]:
        """Status and decoded JSON body, C{None} if there is none."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        response = await self.http.request(
            method, self.issuer.url + path, headers=headers, reactor=reactor, **options
        )
        body = await response.content()
        return response.code, json.loads(body) if body else None

    async def sign_in(self, name: str = "alice") -> dict[str, Any]:
        credentials = {"email": f"{name}@localhost", "password": self.issuer.password(name)}
        status, session = await self.call("POST", "/token?grant_type=password", json=credentials)
        self.assertEqual(status, 200)
        return dict(session)


class ApiTests(ServedIssuerCase):
    async def test_the_key_set(self) -> None:
        response = await self.http.get(self.issuer.jwks_url, reactor=reactor)
        self.assertEqual(response.headers.getRawHeaders("cache-control"), ["public, max-age=600"])
        self.assertEqual(response.headers.getRawHeaders("content-type"), ["application/json"])
        self.assertEqual(await response.json(), {"keys": self.issuer.keys.listed()})
        self.assertEqual(self.issuer.requests["/.well-known/jwks.json"], 1)

    async def test_sign_in(self) -> None:
        session = await self.sign_in()
        self.assertEqual((session["token_type"], session["expires_in"]), ("bearer", 3600))
        self.assertEqual(session["user"]["id"], self.issuer.user("alice").id)
        self.assertTrue(session["refresh_token"])
        status, user = await self.call("GET", "/user", session["access_token"])
        self.assertEqual((status, user["email"]), (200, "alice@localhost"))

    async def test_sign_in_refused(self) -> None:
        for path, body, status, code in (
            (
                "password",
                {"email": "alice@localhost", "password": "no"},
                400,
                "invalid_credentials",
            ),
            ("password", {"email": "eve@localhost", "password": ""}, 400, "invalid_credentials"),
            ("password", {"email": "alice@localhost"}, 400, "bad_json"),
            ("password", ["alice"], 400, "bad_json"),
            ("pkce", {}, 400, "validation_failed"),
        ):
            found, answer = await self.call("POST", f"/token?grant_type={path}", json=body)
            self.assertEqual((found, answer["error_code"]), (status, code), body)
            self.assertEqual(answer["code"], status)

    async def test_a_banned_user(self) -> None:
        session = await self.sign_in("bob")
        self.issuer.user("bob").banned = True
        status, answer = await self.call("GET", "/user", session["access_token"])
        self.assertEqual((status, answer["error_code"]), (403, "user_banned"))
        credentials = {"email": "bob@localhost", "password": self.issuer.password("bob")}
        status, answer = await self.call("POST", "/token?grant_type=password", json=credentials)
        self.assertEqual((status, answer["error_code"]), (400, "user_banned"))

    async def test_user_refused(self) -> None:
        mint = self.issuer.mint
        for token, status, code in (
            (None, 401, "no_authorization"),
            ("nonsense", 403, "bad_jwt"),
            (mint("alice", life=-1), 403, "bad_jwt"),
            (mint("alice", alg="none"), 403, "bad_jwt"),
            (mint("alice", alg="HS256"), 403, "bad_jwt"),
            (mint("alice", header={"kid": "other"}), 403, "bad_jwt"),
            (mint("alice", sub=str(uuid4())), 403, "user_not_found"),
        ):
            found, answer = await self.call("GET", "/user", token)
            self.assertEqual((found, answer["error_code"]), (status, code), token)

    async def test_errors_of_the_newer_version(self) -> None:
        headers = {"x-supabase-api-version": "2024-01-01"}
        status, answer = await self.call("GET", "/user", "nonsense", headers=headers)
        self.assertEqual((status, answer["code"]), (403, "bad_jwt"))
        self.assertEqual(sorted(answer), ["code", "message"])

    async def test_sign_out_ends_the_session_and_not_the_token(self) -> None:
        first, second = await self.sign_in(), await self.sign_in()
        status, answer = await self.call("POST", "/logout?scope=local", first["access_token"])
        self.assertEqual((status, answer), (204, None))
        status, answer = await self.call("GET", "/user", first["access_token"])
        self.assertEqual((status, answer["error_code"]), (403, "session_not_found"))
        status, _ = await self.call("GET", "/user", second["access_token"])
        self.assertEqual(status, 200)

    async def test_scopes_of_sign_out(self) -> None:
        for scope, first_status, second_status in (
            ("?scope=others", 200, 403),
            ("?scope=global", 403, 403),
            ("", 403, 403),
        ):
            first, second = await self.sign_in(), await self.sign_in()
            bob = await self.sign_in("bob")
            await self.call("POST", f"/logout{scope}", first["access_token"])
            statuses = [
                (await self.call("GET", "/user", session["access_token"]))[0]
                for session in (first, second, bob)
            ]
            self.assertEqual(statuses, [first_status, second_status, 200], scope)

    async def test_closing_ends_open_connections(self) -> None:
        pool = HTTPConnectionPool(reactor)
        client = HTTPClient(Agent(reactor, pool=pool))
        response = await client.get(self.issuer.jwks_url, reactor=reactor)
        await response.content()
        await self.issuer.close()
        await pool.closeCachedConnections()


class GateOverHttpTests(ServedIssuerCase):
    """The gate's time is the test's; its fetches are real."""

    async def setUp(self) -> None:
        await super().setUp()
        self.clock = Clock()
        self.keys = JwksKeys(
            self.agent, self.issuer.jwks_url, self.clock, time.time, self.directory / "keys.json"
        )
        self.addCleanup(self.keys.stop)
        self.gate = TokenGate(self.keys, Policy(issuer=self.issuer.issuer), time.time)

    def asked(self) -> int:
        return self.issuer.requests["/.well-known/jwks.json"]

    async def reason(self, token: str) -> str | None:
        """The refusal's code; C{None} if the token is accepted."""
        try:
            await self.gate.verify(token.encode())
        except (Unauthorized, Unavailable) as error:
            return error.reason
        return None

    async def refresh(self, seconds: float = THROTTLE) -> None:
        """Let time pass, and wait for the fetch that this causes."""
        self.clock.advance(seconds)
        await self.keys._fetched()

    async def test_a_signed_in_user(self) -> None:
        token = (await self.sign_in())["access_token"].encode()
        principal = await self.gate.verify(token)
        self.assertEqual(principal.user_id, self.issuer.user("alice").id)
        self.assertEqual(self.gate.recall(token), principal)
        self.assertEqual(self.asked(), 1)

    async def test_a_flood_of_forgeries_asks_once(self) -> None:
        await self.keys.start()
        self.clock.advance(THROTTLE)
        forged = [self.issuer.mint("alice", header={"kid": str(uuid4())}) for _ in range(500)]
        self.assertEqual({await self.reason(token) for token in forged}, {"unknown-key"})
        self.assertEqual(self.asked(), 2)
        self.assertIsNone(await self.reason(self.issuer.mint("alice")))

    async def test_a_proper_rotation_refuses_nobody(self) -> None:
        await self.keys.start()
        old = self.issuer.mint("alice")
        self.issuer.keys.prepare("RS256")
        await self.refresh()
        self.issuer.keys.rotate()
        self.assertIsNone(await self.reason(old))
        self.assertIsNone(await self.reason(self.issuer.mint("alice")))
        self.issuer.keys.revoke()
        await self.refresh()
        self.assertIsNone(self.gate.recall(old.encode()))
        self.assertEqual(await self.reason(old), "unknown-key")
        self.assertIsNone(await self.reason(self.issuer.mint("alice")))

    async def test_a_sudden_rotation_is_noticed_by_its_first_token(self) -> None:
        await self.keys.start()
        self.clock.advance(THROTTLE)
        self.issuer.keys.rotate()
        self.assertIsNone(await self.reason(self.issuer.mint("alice")))
        self.assertEqual(self.asked(), 2)

    async def test_each_fault_leaves_valid_users_in(self) -> None:
        await self.keys.start()
        for fault in (Fault.ERROR, Fault.EMPTY, Fault.INVALID):
            self.issuer.fault = fault
            failures = self.keys.failures
            await self.refresh()
            self.assertEqual(self.keys.failures, failures + 1, fault)
            self.assertIsNone(await self.reason(self.issuer.mint("alice")), fault)
        await self.issuer.close()
        await self.refresh()
        self.assertIsNone(await self.reason(self.issuer.mint("alice")))

    async def test_a_slow_issuer(self) -> None:
        self.issuer.fault, self.issuer.delay = Fault.SLOW, 0.05
        started = time.monotonic()
        self.assertIsNone(await self.reason(self.issuer.mint("alice")))
        self.assertGreaterEqual(time.monotonic() - started, 0.05)

    async def test_a_start_without_the_issuer(self) -> None:
        await self.keys.start()
        self.keys.stop()
        url = self.issuer.jwks_url
        await self.issuer.close()
        path = self.directory / "keys.json"
        self.keys = JwksKeys(self.agent, url, self.clock, time.time, path)
        self.addCleanup(self.keys.stop)
        self.gate = TokenGate(self.keys, Policy(issuer=self.issuer.issuer), time.time)
        await self.keys.start()
        self.assertEqual(self.keys.failures, 1)
        self.assertIsNone(await self.reason(self.issuer.mint("alice")))

    async def test_no_issuer_and_nothing_kept(self) -> None:
        await self.issuer.close()
        self.assertEqual(await self.reason(self.issuer.mint("alice")), "keys")
