"""The local issuer and the gate over real HTTP: sign-in, outage, rotation, a flood of forgeries."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from matrix.auth import Issuer, JwksKeys, Policy, TokenGate
from matrix.auth._keys import THROTTLE
from matrix.errors import Unauthorized, Unavailable
from matrix.testing._issuer_grants import CODE_LIFE, REUSE_INTERVAL
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
        for grant, body, status, code in (
            (
                "password",
                {"email": "alice@localhost", "password": "no"},
                400,
                "invalid_credentials",
            ),
            ("password", {"email": "eve@localhost", "password": ""}, 400, "invalid_credentials"),
            ("password", {"email": "alice@localhost"}, 400, "invalid_credentials"),
            ("password", {}, 400, "validation_failed"),
            ("password", ["alice"], 400, "bad_json"),
            ("pkce", {}, 400, "validation_failed"),
            ("pkce", {"auth_code": "a", "code_verifier": "b"}, 404, "flow_state_not_found"),
            ("magic", {}, 400, "invalid_credentials"),
            ("refresh_token", {"refresh_token": "none"}, 400, "refresh_token_not_found"),
        ):
            found, answer = await self.call("POST", f"/token?grant_type={grant}", json=body)
            self.assertEqual((found, answer["error_code"]), (status, code), body)
            self.assertEqual(answer["code"], status)

    async def test_nothing_to_refresh_with(self) -> None:
        status, answer = await self.call("POST", "/token?grant_type=refresh_token", json={})
        self.assertEqual(status, 400)
        self.assertEqual(
            answer, {"error": "invalid_request", "error_description": "refresh_token required"}
        )

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
            (mint("alice", sub="alice"), 400, "bad_jwt"),
            (mint("alice", session_id="first"), 403, "bad_jwt"),
            (mint("alice", without={"session_id"}), 403, "bad_jwt"),
            (self.issuer.api_key(), 403, "bad_jwt"),
            (mint("alice", alg="HS256", secret=b"x" * 32, header={"kid": None}), 403, "bad_jwt"),
        ):
            found, answer = await self.call("GET", "/user", token)
            self.assertEqual((found, answer["error_code"]), (status, code), token)

    async def test_tokens_of_the_legacy_secret(self) -> None:
        secret = self.issuer.legacy_secret
        token = self.issuer.mint("alice", alg="HS256", secret=secret, header={"kid": None})
        status, user = await self.call("GET", "/user", token)
        self.assertEqual((status, user["id"]), (200, self.issuer.user("alice").id))

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

    async def test_the_paths_of_the_gateway(self) -> None:
        status, answer = await self.call("GET", "/auth/v1/.well-known/jwks.json")
        self.assertEqual((status, len(answer["keys"])), (200, 1))
        url = f"{self.issuer.url}/auth/v2/.well-known/jwks.json"
        response = await self.http.get(url, reactor=reactor)
        await response.content()
        self.assertEqual(response.code, 404)
        self.assertEqual(self.issuer.requests, {"/.well-known/jwks.json": 1})

    async def test_the_gateway_wants_its_key_for_all_but_the_key_set(self) -> None:
        self.issuer.api_key_wanted = "sb_publishable_1"
        self.assertEqual((await self.call("GET", "/user"))[0], 401)
        self.assertEqual((await self.call("GET", "/.well-known/jwks.json"))[0], 200)
        headers = {"apikey": "sb_publishable_1"}
        token = self.issuer.mint("alice")
        self.assertEqual((await self.call("GET", "/user", token, headers=headers))[0], 200)

    async def test_closing_ends_open_connections(self) -> None:
        pool = HTTPConnectionPool(reactor)
        client = HTTPClient(Agent(reactor, pool=pool))
        response = await client.get(self.issuer.jwks_url, reactor=reactor)
        await response.content()
        await self.issuer.close()
        await pool.closeCachedConnections()


class RefreshTests(ServedIssuerCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.ahead = 0.0
        self.issuer.sessions._now = lambda: time.time() + self.ahead

    async def refresh(self, token: str) -> tuple[int, Any]:
        body = {"refresh_token": token}
        return await self.call("POST", "/token?grant_type=refresh_token", json=body)

    async def test_the_same_session_goes_on_with_a_new_token(self) -> None:
        first = await self.sign_in()
        status, second = await self.refresh(first["refresh_token"])
        self.assertEqual(status, 200)
        self.assertEqual(sorted(second), sorted(first))
        self.assertNotEqual(second["refresh_token"], first["refresh_token"])
        before, after = (
            jwt.decode(answer["access_token"], options={"verify_signature": False})
            for answer in (first, second)
        )
        for claim in ("sub", "session_id", "amr", "role", "aud", "iss"):
            self.assertEqual(before[claim], after[claim], claim)

    async def test_a_token_comes_twice_because_its_answer_was_lost(self) -> None:
        first = (await self.sign_in())["refresh_token"]
        _, second = await self.refresh(first)
        self.ahead = REUSE_INTERVAL + 60
        status, again = await self.refresh(first)
        self.assertEqual((status, again["refresh_token"]), (200, second["refresh_token"]))

    async def test_older_tokens_within_the_interval_and_after_it(self) -> None:
        session = await self.sign_in()
        first = session["refresh_token"]
        _, second = await self.refresh(first)
        _, third = await self.refresh(second["refresh_token"])
        self.ahead = REUSE_INTERVAL - 1
        status, again = await self.refresh(first)
        self.assertEqual((status, again["refresh_token"]), (200, third["refresh_token"]))
        self.ahead += REUSE_INTERVAL
        status, answer = await self.refresh(first)
        self.assertEqual((status, answer["error_code"]), (400, "refresh_token_already_used"))
        status, answer = await self.refresh(third["refresh_token"])
        self.assertEqual((status, answer["error_code"]), (400, "refresh_token_not_found"))
        status, answer = await self.call("GET", "/user", session["access_token"])
        self.assertEqual((status, answer["error_code"]), (403, "session_not_found"))

    async def test_sign_out_ends_refreshing_in_its_scope(self) -> None:
        for scope, first_status, second_status in (
            ("local", 400, 200),
            ("others", 200, 400),
            ("global", 400, 400),
        ):
            first, second = await self.sign_in(), await self.sign_in()
            await self.call("POST", f"/logout?scope={scope}", first["access_token"])
            statuses = [
                (await self.refresh(session["refresh_token"]))[0] for session in (first, second)
            ]
            self.assertEqual(statuses, [first_status, second_status], scope)

    async def test_a_banned_user(self) -> None:
        session = await self.sign_in("bob")
        self.issuer.user("bob").banned = True
        status, answer = await self.refresh(session["refresh_token"])
        self.assertEqual((status, answer["error_code"]), (400, "user_banned"))


class CodeTests(ServedIssuerCase):
    async def ask(self, email: str = "alice@localhost", **options: Any) -> tuple[int, Any]:
        return await self.call("POST", "/otp", json={"email": email, **options})

    async def show(
        self, code: str, email: str = "alice@localhost", kind: str = "email"
    ) -> tuple[int, Any]:
        body = {"type": kind, "email": email, "token": code}
        return await self.call("POST", "/verify", json=body)

    async def test_a_code_signs_in_once(self) -> None:
        told: list[tuple[str, str]] = []
        self.issuer.sent = lambda email, code: told.append((email, code))
        self.assertEqual(await self.ask("Alice@LOCALHOST", create_user=False), (200, {}))
        code = LocalIssuer.open(self.directory / "issuer").code("alice")
        self.assertRegex(code, "^[0-9]{6}$")
        self.assertEqual(told, [("alice@localhost", code)])
        status, session = await self.show(code)
        self.assertEqual(status, 200)
        claims = jwt.decode(session["access_token"], options={"verify_signature": False})
        self.assertEqual(claims["amr"][0]["method"], "otp")
        self.assertEqual(session["user"]["email"], "alice@localhost")
        status, answer = await self.show(code)
        self.assertEqual((status, answer["error_code"]), (403, "otp_expired"))

    async def test_the_mailbox_is_private(self) -> None:
        await self.ask()
        (path,) = (self.directory / "issuer" / "mail").iterdir()
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(path.parent.stat().st_mode & 0o777, 0o700)

    async def test_only_the_latest_code_of_the_same_address_counts(self) -> None:
        await self.ask()
        old = self.issuer.code("alice")
        while (await self.ask())[0] == 200 and self.issuer.code("alice") == old:
            pass  # one in a million
        self.assertEqual((await self.show(old))[0], 403)
        self.assertEqual((await self.show(self.issuer.code("alice"), "bob@localhost"))[0], 403)
        self.assertEqual((await self.show(self.issuer.code("alice")))[0], 200)

    async def test_a_code_expires(self) -> None:
        await self.ask()
        self.issuer.codes._now = lambda: time.time() + CODE_LIFE
        self.assertEqual((await self.show(self.issuer.code("alice")))[0], 403)

    async def test_a_new_address(self) -> None:
        status, answer = await self.ask("eve@example.org", create_user=False)
        self.assertEqual((status, answer["error_code"]), (422, "otp_disabled"))
        self.assertEqual((await self.ask("eve@example.org"))[0], 200)
        status, session = await self.show(self.issuer.code("eve@example.org"), "eve@example.org")
        self.assertEqual((status, session["user"]["email"]), (200, "eve@example.org"))

    async def test_asked_too_often(self) -> None:
        self.issuer.codes.interval = 60.0
        self.assertEqual((await self.ask())[0], 200)
        status, answer = await self.ask()
        self.assertEqual((status, answer["error_code"]), (429, "over_email_send_rate_limit"))
        self.assertEqual((await self.ask("bob@localhost"))[0], 200)
        self.issuer.codes._now = lambda: time.time() + 60
        self.assertEqual((await self.ask())[0], 200)

    async def test_refused(self) -> None:
        await self.ask()
        self.issuer.user("bob").banned = True
        mail = {"email": "alice@localhost"}
        for path, body, status, code in (
            ("otp", {}, 400, "validation_failed"),
            ("otp", {"email": "alice"}, 400, "validation_failed"),
            ("otp", {"phone": "+41000"}, 400, "phone_provider_disabled"),
            ("verify", mail | {"token": "1"}, 400, "validation_failed"),
            ("verify", mail | {"type": "email"}, 400, "validation_failed"),
            ("verify", {"type": "email", "token_hash": "x"}, 403, "otp_expired"),
            ("verify", mail | {"type": "email", "token": "1"}, 403, "otp_expired"),
            ("verify", mail | {"type": "email", "token": "ü"}, 403, "otp_expired"),
            (
                "verify",
                {"email": "eve@localhost", "type": "email", "token": "1"},
                403,
                "otp_expired",
            ),
            (
                "verify",
                {"email": "bob@localhost", "type": "email", "token": "1"},
                403,
                "user_banned",
            ),
            ("verify", {"email": "", "type": "email", "token": "1"}, 400, "validation_failed"),
        ):
            found, answer = await self.call("POST", f"/{path}", json=body)
            self.assertEqual((found, answer["error_code"]), (status, code), (path, body))
        status, answer = await self.show(self.issuer.code("alice"), kind="recovery")
        self.assertEqual((status, answer["error_code"]), (403, "otp_expired"))


class GateOverHttpTests(ServedIssuerCase):
    """The gate's time is the test's; its fetches are real."""

    async def setUp(self) -> None:
        await super().setUp()
        self.clock = Clock()
        self.keys = JwksKeys(
            self.agent, self.issuer.jwks_url, self.clock, time.time, self.directory / "keys.json"
        )
        self.addCleanup(self.keys.stop)
        self.gate = TokenGate([Issuer(Policy(self.issuer.issuer), self.keys)], time.time)

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
        self.gate = TokenGate([Issuer(Policy(self.issuer.issuer), self.keys)], time.time)
        await self.keys.start()
        self.assertEqual(self.keys.failures, 1)
        self.assertIsNone(await self.reason(self.issuer.mint("alice")))

    async def test_no_issuer_and_nothing_kept(self) -> None:
        await self.issuer.close()
        self.assertEqual(await self.reason(self.issuer.mint("alice")), "keys")

    async def test_sign_out_at_the_issuer_does_not_end_the_token(self) -> None:
        """Facts, section 5: it is good until it expires, and only refreshing is over."""
        session = await self.sign_in()
        token = session["access_token"]
        self.assertIsNone(await self.reason(token))
        for scope in ("local", "global"):
            status, _ = await self.call("POST", f"/logout?scope={scope}", token)
            self.assertEqual(status, 204 if scope == "local" else 403)
            self.assertIsNone(await self.reason(token))
        body = {"refresh_token": session["refresh_token"]}
        status, _ = await self.call("POST", "/token?grant_type=refresh_token", json=body)
        self.assertEqual(status, 400)

    async def test_a_tab_that_slept_shows_an_expired_token_and_then_refreshes(self) -> None:
        self.issuer.life = -60.0
        session = await self.sign_in()
        self.assertEqual(await self.reason(session["access_token"]), "expired")
        self.issuer.life = 3600.0
        body = {"refresh_token": session["refresh_token"]}
        status, newer = await self.call("POST", "/token?grant_type=refresh_token", json=body)
        self.assertEqual(status, 200)
        principal = await self.gate.verify(newer["access_token"].encode())
        claims = jwt.decode(session["access_token"], options={"verify_signature": False})
        self.assertEqual(principal.session_id, claims["session_id"])
