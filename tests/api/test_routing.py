"""The table finds the one handler for a method and path, and says what else is possible."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.api import Api, BearerCheck
from matrix.errors import MethodNotAllowed, NotFound, Unauthorized
from matrix.http.interfaces import Exchange
from matrix.testing.exchange import FakeExchange


def table(check: Any = None) -> Api:
    api = Api() if check is None else Api(check)

    @api.route("GET", "/v1/users/<user>")
    async def user(exchange: Exchange, user: str) -> None:
        exchange.respond(200, body=f"user {user}".encode())

    @api.route("DELETE", "/v1/users/<user>")
    async def forget(exchange: Exchange, user: str) -> None:
        exchange.respond(204)

    @api.route("GET", "/v1/files/<raw:path>")
    async def file(exchange: Exchange, path: str) -> None:
        exchange.respond(200, body=f"file {path!r}".encode())

    @api.route("GET", "/healthz", public=True)
    async def healthz(exchange: Exchange) -> None:
        exchange.respond(200, body=b"ok")

    return api


class RoutingTests(SynchronousTestCase):
    def call(self, method: str, target: str) -> FakeExchange:
        return FakeExchange.of(method, target).handle(table())

    def test_hands_the_placeholders_over_decoded(self) -> None:
        self.assertEqual(self.call("GET", "/v1/users/al%20ice").answer, b"user al ice")

    def test_encoded_slash_does_not_change_the_match(self) -> None:
        self.assertEqual(self.call("GET", "/v1/users/a%2Fb").answer, b"user a/b")

    def test_undecodable_segment_is_nowhere(self) -> None:
        self.assertIsInstance(self.call("GET", "/v1/users/%FF").error, NotFound)

    def test_raw_placeholder_stays_as_it_came(self) -> None:
        for rest in ("", "a", "a/b%2Fc", "/a", "a//b/", "../x", "%00"):
            self.assertEqual(
                self.call("GET", f"/v1/files/{rest}").answer, f"file {rest!r}".encode()
            )

    def test_query_takes_no_part(self) -> None:
        self.assertEqual(self.call("GET", "/v1/users/bob?x=/y").answer, b"user bob")

    def test_head_follows_get(self) -> None:
        self.assertEqual(self.call("HEAD", "/v1/users/bob").status, 200)

    def test_unknown_path_is_404(self) -> None:
        error = self.call("GET", "/v2").error
        self.assertIsInstance(error, NotFound)
        self.assertIn("/v2", str(error))

    def test_doubled_slash_is_another_path(self) -> None:
        self.assertIsInstance(self.call("GET", "//healthz").error, NotFound)

    def test_unknown_method_is_405_and_says_what_is_possible(self) -> None:
        error = self.call("PATCH", "/v1/users/bob").error
        assert isinstance(error, MethodNotAllowed)
        self.assertEqual(error.headers, ((b"allow", b"DELETE, GET, HEAD, OPTIONS"),))

    def test_options_is_answered(self) -> None:
        exchange = self.call("OPTIONS", "/v1/users/bob")
        self.assertEqual(exchange.status, 204)
        self.assertEqual(exchange.header(b"allow"), b"DELETE, GET, HEAD, OPTIONS")

    def test_options_of_nothing_is_404(self) -> None:
        self.assertIsInstance(self.call("OPTIONS", "/nothing").error, NotFound)
        self.assertIsInstance(self.call("OPTIONS", "*").error, NotFound)


class CheckTests(SynchronousTestCase):
    def call(self, method: str, target: str, **headers: str) -> FakeExchange:
        return FakeExchange.of(method, target, headers).handle(table(BearerCheck("secret")))

    def test_passes_who_may(self) -> None:
        exchange = self.call("GET", "/v1/users/bob", authorization="Bearer secret")
        self.assertEqual(exchange.status, 200)

    def test_stranger_learns_nothing_of_the_table(self) -> None:
        calls = [
            ("GET", "/v1/users/bob"),
            ("GET", "/nothing"),
            ("PATCH", "/v1/users/bob"),
            ("OPTIONS", "/v1/users/bob"),
            ("POST", "/healthz"),
        ]
        for method, target in calls:
            exchange = self.call(method, target)
            self.assertIsInstance(exchange.error, Unauthorized, (method, target))
            self.assertEqual(exchange.written, [])

    def test_public_route_asks_nothing(self) -> None:
        self.assertEqual(self.call("GET", "/healthz").answer, b"ok")
        self.assertEqual(self.call("HEAD", "/healthz").status, 200)
