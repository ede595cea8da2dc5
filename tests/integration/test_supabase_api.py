"""Supabase's REST API as we call it: over HTTP to the local issuer, and to servers that fail."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from matrix.auth import ApiRefusal, ApiUnreachable, AuthApi
from matrix.auth._supabase import API_TIMEOUT, DEFAULT_LIFE, MAX_ANSWER
from matrix.testing.issuer import Fault
from tests.integration.test_issuer import ServedIssuerCase

KEY = "sb_publishable_local"
TOKENS = {"access_token": "an-access-token", "refresh_token": "a-refresh-token"}


class LocalIssuerTests(ServedIssuerCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.issuer.api_key_wanted = KEY
        self.api = AuthApi(self.agent, self.issuer.url, KEY, reactor)

    async def test_a_password_signs_in_and_is_refreshed_and_out(self) -> None:
        first = await self.api.password("alice@localhost", self.issuer.password("alice"))
        self.assertEqual(first.life, self.issuer.life)
        await self.api.user(first.access_token)
        second = await self.api.refresh(first.refresh_token)
        self.assertNotEqual(first.refresh_token, second.refresh_token)
        await self.api.user(second.access_token)
        await self.api.logout(second.access_token)
        refused = await self.refused(self.api.user(second.access_token))
        self.assertEqual((refused.status, refused.code), (403, "session_not_found"))
        self.assertTrue(refused.ends_session)
        refused = await self.refused(self.api.refresh(second.refresh_token))
        self.assertEqual((refused.status, refused.code), (400, "refresh_token_not_found"))

    async def test_signing_out_ends_no_other_session(self) -> None:
        both = [
            await self.api.password("alice@localhost", self.issuer.password("alice"))
            for _ in range(2)
        ]
        await self.api.logout(both[0].access_token)
        await self.api.user(both[1].access_token)

    async def test_a_mailed_code_signs_in_once(self) -> None:
        await self.api.send_code("bob@localhost")
        code = self.issuer.code("bob")
        grant = await self.api.verify_code("bob@localhost", code)
        await self.api.user(grant.access_token)
        refused = await self.refused(self.api.verify_code("bob@localhost", code))
        self.assertEqual((refused.status, refused.code), (403, "otp_expired"))

    async def test_nobody_is_registered(self) -> None:
        refused = await self.refused(self.api.send_code("nobody@example.org"))
        self.assertEqual((refused.status, refused.code), (422, "otp_disabled"))
        self.assertIsNone(self.issuer.by_email("nobody@example.org"))

    async def test_what_is_refused_has_its_code(self) -> None:
        refused = await self.refused(self.api.password("alice@localhost", "guess"))
        self.assertEqual((refused.status, refused.code), (400, "invalid_credentials"))
        self.issuer.user("bob").banned = True
        password = self.issuer.password("bob")
        refused = await self.refused(self.api.password("bob@localhost", password))
        self.assertEqual(refused.code, "user_banned")

    async def test_a_wrong_api_key_ends_no_session(self) -> None:
        grant = await self.api.password("alice@localhost", self.issuer.password("alice"))
        api = AuthApi(self.agent, self.issuer.url, "wrong", reactor)
        refused = await self.refused(api.user(grant.access_token))
        self.assertEqual(refused.status, 401)
        self.assertFalse(refused.ends_session)

    async def test_an_outage_is_no_refusal(self) -> None:
        self.issuer.fault = Fault.ERROR
        await self.assertFailure(self.call_out(self.api.refresh("x")), ApiUnreachable)
        await self.issuer.close()
        error = await self.assertFailure(
            self.call_out(self.api.password("alice@localhost", "secret-word")), ApiUnreachable
        )
        self.assertNotIn("secret-word", str(error) + repr(error))

    async def refused(self, call: Any) -> ApiRefusal:
        error = await self.assertFailure(self.call_out(call), ApiRefusal)
        assert isinstance(error, ApiRefusal)
        return error

    def call_out(self, call: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(call)


class Answering(Resource):
    """Answers everything alike, and remembers what it was asked."""

    isLeaf = True

    def __init__(self, status: int, body: object, headers: dict[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = headers
        self.asked: list[Any] = []
        self.first: Deferred[None] = Deferred()

    def render(self, request: Any) -> Any:
        self.asked.append(request)
        if len(self.asked) == 1:
            self.first.callback(None)
        if self.status == 0:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        return self.body


class AnswerTests(TestCase):
    async def serve(self, status: int, body: object = b"", **headers: str) -> AuthApi:
        self.server = Answering(status, body, headers)
        site = Site(self.server)  # type: ignore[no-untyped-call]
        port = reactor.listenTCP(0, site, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}/auth/v1/"
        self.clock = Clock()
        return AuthApi(Agent(reactor), url, KEY, self.clock)  # type: ignore[no-untyped-call]

    async def failure(self, status: int, body: object = b"", **headers: str) -> Any:
        api = await self.serve(status, body, **headers)
        try:
            await api.password("a@example.org", "secret-word")
        except (ApiRefusal, ApiUnreachable) as error:
            self.assertNotIn("secret-word", f"{error} {error!r}")
            return error
        raise AssertionError(f"{status} {body!r} was taken for a grant")

    async def grant(self, body: object, **headers: str) -> Any:
        return await (await self.serve(200, body, **headers)).refresh("r-1")

    async def test_every_shape_of_an_error_gives_its_code(self) -> None:
        for body in (
            {"code": "invalid_credentials", "message": "m"},
            {"code": 400, "error_code": "invalid_credentials", "msg": "m"},
            {"error": "invalid_credentials", "error_description": "m"},
        ):
            self.assertEqual((await self.failure(400, body)).code, "invalid_credentials", body)

    async def test_no_code_is_made_of_what_is_none(self) -> None:
        for body in ({}, [], {"code": 7}, {"code": "\n"}, {"code": ["a"]}, b"<html>"):
            self.assertEqual((await self.failure(400, body)).code, "", body)

    async def test_only_a_lost_session_is_lost(self) -> None:
        for status, code, ends in (
            (403, "session_not_found", True),
            (403, "user_banned", True),
            (403, "bad_jwt", False),
            (401, "no_authorization", False),
            (401, "", False),
            (400, "user_banned", False),
            (429, "over_request_rate_limit", False),
        ):
            refusal = await self.failure(status, {"code": code})
            self.assertIsInstance(refusal, ApiRefusal)
            self.assertEqual(refusal.ends_session, ends, (status, code))

    async def test_when_to_come_back_is_told(self) -> None:
        for text, seconds in (("17", 17.0), ("9" * 30, 3600.0)):
            refusal = await self.failure(429, {}, **{"retry-after": text})
            self.assertEqual(refusal.retry_after, seconds)
        for text in ("soon", "-1", "1.5"):
            refusal = await self.failure(429, {}, **{"retry-after": text})
            self.assertIsNone(refusal.retry_after, text)

    async def test_nonsense_counts_as_an_outage(self) -> None:
        for status, body in (
            (200, b"<html>"),
            (200, []),
            (200, {}),
            (200, {"access_token": "a"}),
            (200, {"access_token": 1, "refresh_token": "r"}),
            (301, b""),
            (404, b"not here"),
            (500, {"code": "unexpected_failure"}),
            (200, b" " * (MAX_ANSWER + 1)),
        ):
            self.assertIsInstance(await self.failure(status, body), ApiUnreachable, status)

    async def test_what_says_nothing_is_given_up(self) -> None:
        api = await self.serve(0)
        calling = Deferred.fromCoroutine(api.refresh("r"))
        await self.server.first
        self.clock.advance(API_TIMEOUT - 0.1)
        self.assertNoResult(calling)
        self.clock.advance(0.2)
        await self.assertFailure(calling, ApiUnreachable)

    async def test_the_request_is_what_supabase_expects(self) -> None:
        grant = await self.grant(TOKENS)
        self.assertEqual((grant.access_token, grant.life), ("an-access-token", DEFAULT_LIFE))
        [request] = self.server.asked
        self.assertEqual(request.uri, b"/auth/v1/token?grant_type=refresh_token")
        self.assertEqual(request.getHeader("apikey"), KEY)
        self.assertEqual(request.getHeader("content-type"), "application/json")
        self.assertIsNone(request.getHeader("authorization"))

    async def test_a_life_that_is_none_becomes_the_usual(self) -> None:
        for life in (0, -1, "3600", None, True, 1e30):
            grant = await self.grant(TOKENS | {"expires_in": life})
            self.assertEqual(grant.life, DEFAULT_LIFE, life)

    async def test_no_cookie_of_one_call_goes_with_the_next(self) -> None:
        api = await self.serve(200, TOKENS, **{"set-cookie": "__cf_bm=of-one-user; Path=/"})
        await api.refresh("r-1")
        await api.refresh("r-2")
        self.assertEqual([request.getHeader("cookie") for request in self.server.asked], [None] * 2)

    async def test_secrets_are_in_no_repr(self) -> None:
        text = repr(await self.grant(TOKENS)) + repr(await self.serve(200))
        for secret in (KEY, *TOKENS.values()):
            self.assertNotIn(secret, text)
