"""Pages of other origins: what they may ask, what they may read, and that asking wakes nobody."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.router.world import LISTED, Client, World

EVIL = "https://evil.example"
OURS = "https://door"


class CorsCase(SynchronousTestCase):
    """A world in which alice's machine sleeps."""

    def setUp(self) -> None:
        self.world = World()

    def ask(self, target: str = "/", **request: Any) -> Client:
        client = self.world.ask(target, **request)
        self.world.let_pass(0.5)
        return client

    def allowed(self, client: Client) -> str | None:
        return client.headers.get("access-control-allow-origin")


class PreflightTests(CorsCase):
    """Preflights carry no credential, and are answered by policy."""

    def preflight(self, origin: str, target: str = "/x", **request: Any) -> Client:
        asked = {
            "Origin": origin,
            "Access_Control_Request_Method": "PUT",
            "Access_Control_Request_Headers": "authorization,x-thing",
        }
        return self.ask(target, method="OPTIONS", token=None, **{**asked, **request})

    def test_a_listed_page_may_send_what_it_wants_to(self) -> None:
        for target in ("/x", "/-/ticket", "/-/session"):
            for origin in (LISTED, OURS):
                client = self.preflight(origin, target)
                self.assertEqual(client.status, 204)
                headers = client.headers
                self.assertEqual(self.allowed(client), origin)
                self.assertEqual(headers["access-control-allow-credentials"], "true")
                self.assertEqual(headers["access-control-allow-methods"], "PUT")
                self.assertEqual(headers["access-control-allow-headers"], "authorization,x-thing")
                self.assertEqual(headers["access-control-max-age"], "600")
                self.assertIn("Origin", headers["vary"])
        self.assertEqual(self.world.provider_twin.calls, [], "nobody was woken")

    def test_any_other_may_not(self) -> None:
        for origin in (EVIL, "null", "https://app.example:8443", "http://app.example"):
            client = self.preflight(origin)
            self.assertEqual(client.status, 403)
            self.assertIsNone(self.allowed(client))
            self.assertEqual(json.loads(client.body)["reason"], "origin")
        self.assertEqual(self.world.provider_twin.calls, [])

    def test_not_even_with_a_credential_does_one_reach_a_machine(self) -> None:
        self.world.awake()
        client = self.preflight(LISTED, Authorization="Bearer alice-token")
        self.assertEqual(client.status, 204)
        self.assertEqual(self.world.place().heads, [])

    def test_what_cannot_be_asked_for_is_not_allowed(self) -> None:
        client = self.preflight(
            LISTED, Access_Control_Request_Method="P T", Access_Control_Request_Headers="a b"
        )
        self.assertEqual(client.status, 204)
        self.assertNotIn("access-control-allow-methods", client.headers)
        self.assertNotIn("access-control-allow-headers", client.headers)

    def test_without_headers_to_ask_for(self) -> None:
        client = self.preflight(LISTED, Access_Control_Request_Headers="")
        self.assertEqual(client.headers["access-control-allow-methods"], "PUT")
        self.assertNotIn("access-control-allow-headers", client.headers)

    def test_other_options_requests_are_the_machines(self) -> None:
        self.world.awake()
        client = self.ask(method="OPTIONS", Origin=LISTED)
        self.assertEqual((client.status, client.body), (200, b"hello"))
        self.assertEqual(self.ask(method="OPTIONS", token=None).status, 401)


class AnswerTests(CorsCase):
    """What a page may read."""

    def setUp(self) -> None:
        super().setUp()
        self.world.awake()

    def test_a_listed_page_may_read_a_machines_answer(self) -> None:
        client = self.ask(Origin=LISTED)
        self.assertEqual(self.allowed(client), LISTED)
        self.assertEqual(client.headers["access-control-allow-credentials"], "true")
        self.assertIn("X-Request-Id", client.headers["access-control-expose-headers"])
        self.assertEqual(client.headers["vary"], "Origin")

    def test_what_the_machine_says_of_it_counts(self) -> None:
        self.world.place().answer = (
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n"
        )
        client = self.ask(Origin=LISTED)
        self.assertEqual(self.allowed(client), "*")
        self.assertNotIn("access-control-allow-credentials", client.headers)
        self.assertEqual(client.transport.data.lower().count(b"access-control"), 1)

    def test_no_other_page_may(self) -> None:
        for origin in (EVIL, OURS, "null"):
            client = self.ask(Origin=origin)
            self.assertEqual(client.status, 200)
            self.assertNotIn(b"access-control", client.transport.data.lower())
            self.assertNotIn("vary", client.headers)

    def test_one_page_after_another_on_a_connection(self) -> None:
        client = self.world.client()
        for origin, allowed in ((LISTED, LISTED), (EVIL, None), (LISTED, LISTED)):
            client.reset().ask(Origin=origin)
            self.world.let_pass(0.1)
            self.assertEqual(self.allowed(client), allowed)

    def test_our_own_answers_and_refusals_too(self) -> None:
        for target, status, request in (
            ("/-/session", 200, {}),
            ("/-/ticket", 201, {"method": "POST"}),
            ("/", 401, {"token": None}),
            ("/-/nothing", 404, {}),
        ):
            client = self.ask(target, Origin=LISTED, **request)  # type: ignore[arg-type]
            self.assertEqual((client.status, self.allowed(client)), (status, LISTED), target)
            other = self.ask(target, Origin=EVIL, **request)  # type: ignore[arg-type]
            self.assertEqual((other.status, self.allowed(other)), (status, None), target)

    def test_a_machine_that_fails_is_told_of(self) -> None:
        self.world.place().answer = b"nonsense\r\n\r\n"
        client = self.ask(Origin=LISTED)
        self.assertEqual((client.status, self.allowed(client)), (502, LISTED))
