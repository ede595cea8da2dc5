"""The front validates first, and relays to what is awake without asking anybody."""

from __future__ import annotations

import json
import re

from twisted.trial.unittest import SynchronousTestCase

from matrix.metrics import series
from matrix.model import MachineState, User, UserState
from tests.router.streams import open_websocket
from tests.router.world import ALICE, BOB, Client, World


class ValidationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.awake()
        self.world.provider_twin.calls.clear()

    def refused(self, client: Client, status: int, reason: str) -> Client:
        self.assertEqual(client.status, status)
        self.assertEqual(client.headers["content-type"], "application/problem+json")
        problem = json.loads(client.body)
        self.assertEqual((problem["status"], problem["reason"]), (status, reason))
        self.assertEqual(self.world.place().heads, [])
        return client

    def counted(self, reason: str) -> float:
        return self.world.registry.counter(series.AUTH, reason).value

    def test_no_token(self) -> None:
        client = self.refused(self.world.ask(token=None), 401, "missing")
        self.assertEqual(client.headers["www-authenticate"], 'Bearer realm="matrix"')
        self.assertEqual(self.counted("missing"), 1)

    def test_a_forged_token(self) -> None:
        client = self.refused(self.world.ask(token="forged"), 401, "malformed")
        self.assertIn('error="invalid_token"', client.headers["www-authenticate"])
        self.assertEqual(self.counted("malformed"), 1)

    def test_an_expired_token(self) -> None:
        client = self.refused(self.world.ask(token="old-token"), 401, "expired")
        self.assertIn("expired", client.headers["www-authenticate"])

    def test_one_that_expires_while_it_is_known(self) -> None:
        self.assertEqual(self.served(self.world.ask()).status, 200)
        self.world.clock.advance(3601)
        self.world.place().heads.clear()
        self.refused(self.world.ask(), 401, "expired")

    def served(self, client: Client) -> Client:
        self.world.let_pass(0.2)
        return client

    def test_two_credentials_are_none(self) -> None:
        client = self.world.client()
        client.connection.dataReceived(
            b"GET / HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer alice-token\r\n"
            b"Authorization: Bearer bob-token\r\n\r\n"
        )
        self.refused(client, 400, "two-authorizations")

    def test_a_browser_gets_a_page_instead(self) -> None:
        client = self.world.ask(token=None, Accept="text/html")
        self.assertEqual(client.status, 401)
        self.assertIn("text/html", client.headers["content-type"])
        self.assertIn("www-authenticate", client.headers)

    def test_a_cookie_does_as_well(self) -> None:
        client = self.served(self.world.ask(token=None, Cookie="__Host-matrix=alice-token; a=b"))
        self.assertEqual(client.status, 200)
        self.assertIn(b"Cookie: a=b\r\n", self.world.place().heads[0])
        self.assertNotIn(b"alice-token", self.world.place().heads[0])

    def test_a_cookie_from_anothers_page_does_not(self) -> None:
        cookie = "__Host-matrix=alice-token"
        for origin in ("https://evil.example", "null"):
            client = self.world.ask(method="POST", token=None, Cookie=cookie, Origin=origin)
            self.refused(client, 403, "origin")
        self.refused(self.world.ask(method="DELETE", token=None, Cookie=cookie), 403, "origin")

    def test_a_cookie_from_our_own_page_does(self) -> None:
        cookie = "__Host-matrix=alice-token"
        client = self.world.ask(method="POST", token=None, Cookie=cookie, Origin="https://door")
        self.assertEqual(self.served(client).status, 200)

    def test_a_websocket_with_a_cookie_from_anothers_page_does_not(self) -> None:
        client = self.world.ask(
            token=None,
            Cookie="__Host-matrix=alice-token",
            Origin="https://evil.example",
            Connection="Upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        )
        self.refused(client, 403, "origin")

    def test_each_refusal_is_counted_by_its_rule(self) -> None:
        self.world.ask(token=None)
        self.world.ask(token="old-token")
        refused = self.world.registry.counter
        self.assertEqual(refused(series.REFUSED, "unauthorized", "missing").value, 1)
        self.assertEqual(refused(series.REFUSED, "unauthorized", "expired").value, 1)


class WarmPathTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.ask()
        self.world.let_pass(0.3)
        self.place = self.world.place()
        self.place.heads.clear()
        self.world.provider_twin.calls.clear()
        self.calls = self.world.store.calls

    def test_the_machine_has_the_request_before_the_handler_returns(self) -> None:
        client = self.world.client()
        self.assertEqual(self.place.heads, [])
        client.ask("/warm?a=b")
        self.assertEqual(len(self.place.heads), 1, "and no time passed")
        self.assertTrue(self.place.heads[0].startswith(b"GET /warm?a=b HTTP/1.1\r\nHost: door\r\n"))

    def test_nobody_is_asked(self) -> None:
        for _ in range(20):
            client = self.world.ask()
            self.world.turn()
            self.assertEqual(client.status, 200)
        self.assertEqual(self.world.store.calls, self.calls)
        self.assertEqual(self.world.provider_twin.calls, [])
        self.assertEqual(self.world.registry.counter(series.AUTH, "cached").value, 20)

    def test_the_machine_learns_who_is_served_and_not_by_which_token(self) -> None:
        self.world.ask(X_Matrix_User="somebody-else", X_Forwarded_For="10.0.0.1")
        [head] = self.place.heads
        self.assertIn(f"X-Matrix-User: {ALICE}\r\n".encode(), head)
        self.assertEqual(head.lower().count(b"x-matrix-user"), 1)
        self.assertEqual(head.count(b"Authorization: Bearer "), 1)
        self.assertNotIn(b"alice-token", head)
        self.assertIn(b"X-Forwarded-For: 192.0.2.7\r\n", head)
        self.assertNotIn(b"10.0.0.1", head)

    def test_each_request_has_an_id_and_a_trace(self) -> None:
        clients = [self.world.ask(), self.world.ask()]
        self.world.turn()
        ids = [client.headers["x-request-id"] for client in clients]
        self.assertNotEqual(*ids)
        for number, head in zip(ids, self.place.heads, strict=True):
            self.assertIn(f"X-Request-Id: {number}\r\n".encode(), head)
        traces = [re.search(rb"traceparent: (00-[0-9a-f]{32}-)", head) for head in self.place.heads]
        assert traces[0] is not None
        assert traces[1] is not None
        self.assertNotEqual(traces[0][1], traces[1][1])

    def test_a_trace_that_comes_along_is_kept(self) -> None:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        self.world.ask(traceparent=trace)
        self.assertEqual(self.place.heads[0].count(b"traceparent"), 1)
        self.assertIn(trace.encode(), self.place.heads[0])

    def test_the_answer_tells_the_times_and_no_wake(self) -> None:
        client = self.world.ask()
        self.world.turn()
        times = client.headers["server-timing"]
        number = r"\d+\.\d{3}"
        self.assertTrue(
            re.fullmatch(f"auth;dur={number}, route;dur={number}, upstream;dur={number}", times),
            times,
        )
        self.assertNotIn("matrix-wake", client.headers)
        self.assertNotIn("matrix-degraded", client.headers)

    def test_the_head_of_a_websocket_tells_of_its_way_too(self) -> None:
        self.world.awake()
        client = open_websocket(self.world)
        self.assertEqual(client.status, 101)
        self.assertRegex(client.headers["server-timing"], r"upstream;dur=\d+\.\d{3}$")

    def test_each_user_reaches_their_own_machine(self) -> None:
        self.world.awake(BOB)
        self.world.ask("/for-bob", token="bob-token")
        self.world.ask("/for-alice")
        self.world.turn()
        self.assertIn(b"/for-alice", self.place.heads[0])
        self.assertEqual(len(self.place.heads), 1)
        [head] = self.world.place(BOB).heads
        self.assertIn(f"X-Matrix-User: {BOB}\r\n".encode(), head)

    def test_a_blocked_user_is_refused_from_the_next_request_on(self) -> None:
        self.world.put_user(User(ALICE, "alice@example.org", UserState.BLOCKED))
        client = self.world.ask()
        self.world.turn()
        self.assertEqual((client.status, self.place.heads), (403, []))
        self.assertEqual(json.loads(client.body)["reason"], "blocked")

    def test_and_a_deleted_one_is_told_so(self) -> None:
        self.world.put_user(User(ALICE, "alice@example.org", UserState.DELETED))
        client = self.world.ask()
        self.world.turn()
        self.assertEqual((client.status, json.loads(client.body)["reason"]), (410, "deleted"))

    def test_a_thousand_requests_share_the_machine(self) -> None:
        clients = [self.world.ask(f"/{number}") for number in range(1000)]
        self.world.turn()
        self.assertEqual({client.status for client in clients}, {200})
        self.assertEqual(self.world.route().backend.requests, 0)  # type: ignore[union-attr]


class OwnPathsTests(SynchronousTestCase):
    def test_they_never_reach_a_machine(self) -> None:
        world = World()
        world.awake()
        world.ask("/-/healthz")
        for target in ("/-/", "/-/nothing", "/-/healthz/more", "/-/wake"):
            client = world.ask(target)
            self.assertEqual(client.status, 404, target)
        world.turn()
        self.assertEqual(world.place().heads, [])

    def test_all_others_do(self) -> None:
        world = World()
        world.ask()
        world.let_pass(0.3)
        world.place().heads.clear()
        targets = ["/healthz", "/-", "/-x/", "/%2D/", "//-/healthz", "/a/-/b"]
        for target in targets:
            world.ask(target)
        seen = [head.split(b" ")[1].decode() for head in world.place().heads]
        self.assertEqual(seen, targets)


class StaleDirectoryTests(SynchronousTestCase):
    """The table may be served for ten minutes while changes go unnoticed."""

    def setUp(self) -> None:
        self.world = World()
        self.world.ask()
        self.world.let_pass(0.3)
        self.world.store.lose()

    def ask(self, **request: str) -> Client:
        client = self.world.ask(**request)  # type: ignore[arg-type]
        self.world.turn()
        return client

    def test_answers_say_so(self) -> None:
        client = self.ask()
        self.assertEqual((client.status, client.headers["matrix-degraded"]), (200, "directory"))
        self.world.store.recover()
        self.assertNotIn("matrix-degraded", self.ask().headers)

    def test_it_is_served_until_the_limit(self) -> None:
        self.world.clock.advance(599)
        calls = self.world.store.calls
        self.assertEqual(self.ask().status, 200)
        self.assertEqual(self.world.store.calls, calls)

    def test_and_refused_beyond_it(self) -> None:
        self.world.clock.advance(601)
        client = self.ask()
        self.assertEqual((client.status, json.loads(client.body)["reason"]), (503, "directory"))
        self.assertIn("retry-after", client.headers)

    def test_a_directory_that_answers_confirms_the_route(self) -> None:
        since = self.world.clock.seconds()
        self.world.clock.advance(601)
        self.world.store.recover()
        self.world.directory.stale_since = lambda: since  # only the listening connection is lost
        calls = self.world.store.calls
        self.assertEqual(self.ask().status, 200)
        self.assertGreater(self.world.store.calls, calls)
        self.world.store._users[ALICE] = User(ALICE, "", UserState.BLOCKED)  # unheard
        self.assertEqual(self.ask().status, 403)

    def test_it_is_well_again_when_it_is_back(self) -> None:
        self.world.clock.advance(601)
        self.ask()
        self.world.store.recover()
        self.assertEqual(self.ask().status, 200)

    def test_nobody_is_woken_meanwhile(self) -> None:
        client = self.ask(token="bob-token")
        self.assertEqual((client.status, json.loads(client.body)["reason"]), (503, "directory"))
        self.assertIsNone(self.world.real(BOB))
        self.assertEqual(self.world.real(), MachineState.RUNNING)
