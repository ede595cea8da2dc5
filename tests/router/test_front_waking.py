"""What a request meets whose machine is not awake: it is held, told, or refused with a reason."""

from __future__ import annotations

import json
import re

from twisted.trial.unittest import SynchronousTestCase

from matrix.machines import ProviderError
from matrix.metrics import series
from matrix.model import MachineState
from matrix.router.front import Bounds
from tests.router.world import ALICE, Client, World, run

HTML = "text/html,application/xhtml+xml"
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
ACCEPTED = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The answer to that key (RFC 6455 section 1.3)."""


class SleepingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.asleep()
        self.world.provider_twin.calls.clear()

    @property
    def held(self) -> float:
        return self.world.registry.gauge(series.HELD_REQUESTS).value


class HoldingTests(SleepingTestCase):
    def test_a_request_is_held_until_its_machine_is_ready(self) -> None:
        self.world.provider_twin.delays["start"] = 20.0
        client = self.world.ask("/api")
        self.world.let_pass(19.0, step=0.25)
        self.assertFalse(client.answered)
        self.assertEqual(self.held, 1)
        self.world.let_pass(2.0)
        self.assertEqual((client.status, client.body), (200, b"hello"))
        self.assertEqual(self.held, 0)

    def test_the_answer_tells_of_the_wake(self) -> None:
        client = self.world.ask()
        self.world.let_pass(0.3)
        self.assertRegex(client.headers["matrix-wake"], r"^suspended;dur=\d+$")
        three, one = r"\d+\.\d{3}", r"\d+\.\d"
        self.assertTrue(
            re.fullmatch(
                f"auth;dur={three}, route;dur={three}, wake;dur={one}, ready;dur={one}, "
                f"upstream;dur={three}",
                client.headers["server-timing"],
            ),
            client.headers["server-timing"],
        )

    def test_and_that_of_the_next_request_does_not(self) -> None:
        self.world.ask()
        self.world.let_pass(0.3)
        client = self.world.ask()
        self.world.turn()
        self.assertNotIn("matrix-wake", client.headers)

    def test_a_first_request_makes_the_machine(self) -> None:
        world = World()
        client = world.ask()
        world.let_pass(0.3)
        self.assertTrue(client.headers["matrix-wake"].startswith("provisioning;dur="))
        self.assertEqual(world.fleet_twin.made, 1)

    def test_it_is_not_held_beyond_the_limit(self) -> None:
        self.world.provider_twin.delays["start"] = 45.0
        client = self.world.ask()
        self.world.let_pass(29.5, step=0.25)
        self.assertFalse(client.answered)
        self.world.let_pass(1.0, step=0.25)
        problem = json.loads(client.body)
        self.assertEqual((client.status, problem["reason"]), (503, "wake-timeout"))
        self.assertIn("30 s", problem["detail"])
        self.assertEqual(self.held, 0)

    def test_but_the_wake_goes_on_for_who_tries_again(self) -> None:
        self.world.provider_twin.delays["start"] = 45.0
        self.world.ask()
        self.world.let_pass(31.0, step=0.25)
        client = self.world.ask()
        self.world.let_pass(20.0, step=0.25)
        self.assertEqual(client.status, 200)
        self.assertEqual(self.world.asked("start"), 1)

    def test_when_to_try_again_is_learned_from_the_machines_own_wakes(self) -> None:
        self.world.route().estimate = None
        self.world.store._events.clear()
        self.world.provider_twin.delays["start"] = 45.0
        client = self.world.ask()
        self.world.let_pass(31.0, step=0.25)
        self.assertEqual(client.headers["retry-after"], "2")
        self.world.let_pass(20.0, step=0.25)
        self.world.asleep()
        client = self.world.ask()
        self.world.let_pass(31.0, step=0.25)
        self.assertApproximates(int(client.headers["retry-after"]), 45, 2)

    def test_a_client_that_leaves_is_held_no_longer(self) -> None:
        self.world.provider_twin.delays["start"] = 5.0
        client = self.world.ask()
        self.world.let_pass(1.0)
        client.leave()
        self.assertEqual(self.held, 0)
        self.assertEqual(self.world.log.records[-1].status, 499)
        self.world.let_pass(5.0)
        self.assertEqual(self.world.place().heads, [])
        self.assertEqual(self.world.real(), MachineState.RUNNING)

    def test_a_body_waits_unread(self) -> None:
        self.world.provider_twin.delays["start"] = 5.0
        client = self.world.ask("/upload", method="PUT", Content_Length="1000000")
        client.connection.dataReceived(b"x" * 65536)
        self.world.let_pass(1.0)
        self.assertTrue(client.transport.paused)
        self.assertEqual(self.world.place().heads, [])
        self.world.let_pass(5.0)
        self.assertFalse(client.transport.paused)
        sent = self.world.place().open[-1].transport.data
        self.assertTrue(sent.endswith(b"x" * 65536), "what came early came along")

    def test_a_thousand_at_once_are_all_answered_by_one_start(self) -> None:
        self.world.provider_twin.delays["start"] = 0.5
        clients = [self.world.ask(f"/{number}") for number in range(1000)]
        self.assertEqual(self.held, 1000)
        self.world.let_pass(3.0, step=0.01)
        self.assertEqual({client.status for client in clients}, {200})
        self.assertEqual((self.world.asked("start"), self.held), (1, 0))
        wanted = {b"/%d" % number for number in range(1000)}
        self.assertEqual({head.split(b" ")[1] for head in self.world.place().heads}, wanted)

    def test_a_failure_says_why_and_when_to_try_again(self) -> None:
        self.world.provider_twin.fail("start", ProviderError("secret", retry_after=3.0))
        client = self.world.ask()
        self.assertEqual((client.status, client.headers["retry-after"]), (503, "3"))
        self.assertEqual(json.loads(client.body)["reason"], "provider")
        self.assertNotIn(b"secret", client.body)
        early = self.world.ask()
        self.assertEqual((early.status, early.headers["retry-after"]), (503, "3"))
        self.assertEqual(json.loads(early.body)["reason"], "paused")
        self.assertNotIn(b"secret", early.body)
        self.world.let_pass(3.0)
        client = self.world.ask()
        self.world.let_pass(0.3)
        self.assertEqual(client.status, 200)


class NavigationTests(SleepingTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.world.provider_twin.delays["start"] = 5.0

    def test_a_browser_is_held_for_a_moment_and_then_shown_the_waking_page(self) -> None:
        client = self.world.ask("/docs?page=2", Accept=HTML)
        self.world.let_pass(0.9)
        self.assertFalse(client.answered)
        self.world.let_pass(0.2)
        self.assertEqual(client.status, 503)
        self.assertIn("text/html", client.headers["content-type"])
        self.assertEqual(client.headers["cache-control"], "no-store")
        self.assertGreaterEqual(int(client.headers["retry-after"]), 1)
        self.assertIn(b"/docs?page=2", client.body)
        self.assertIn(b"/-/wake/events", client.body)
        self.assertEqual(self.held, 0)

    def test_a_fast_wake_needs_no_page(self) -> None:
        self.world.provider_twin.delays["start"] = 0.5
        client = self.world.ask("/", Accept=HTML)
        self.world.let_pass(0.9)
        self.assertEqual((client.status, client.body), (200, b"hello"))
        self.assertEqual(self.world.events()[-1], ("wake", "navigation"))

    def test_the_page_tells_what_wakes_take(self) -> None:
        self.slow_wakes(8.2)
        client = self.world.ask("/", Accept=HTML)
        self.world.let_pass(1.1)
        self.assertEqual(client.headers["retry-after"], "8")
        self.assertIn(b"8200", client.body)

    def slow_wakes(self, seconds: float) -> None:
        """All that is known of the machine's wakes is that they took so long."""
        detail = {"was": "suspended", "start_ms": seconds * 1000, "ready_ms": 0}
        self.world.store._events.clear()
        run(self.world.store.record(ALICE, "wake", "request", detail))

    def test_a_router_that_has_just_begun_knows_what_wakes_take(self) -> None:
        self.slow_wakes(7.4)
        other = World(owner="router:2", within=self.world)
        other.provider_twin.delays["start"] = 5.0
        client = other.ask("/", Accept=HTML)
        other.let_pass(1.1)
        self.assertEqual(client.headers["retry-after"], "7")

    def test_the_page_does_not_stop_the_wake(self) -> None:
        self.world.ask("/", Accept=HTML)
        self.world.let_pass(6.0)
        client = self.world.ask("/", Accept=HTML)
        self.world.turn()
        self.assertEqual(client.status, 200)
        self.assertEqual(self.world.asked("start"), 1)

    def test_a_failure_is_shown_as_a_page(self) -> None:
        self.world.provider_twin.fail("start", ProviderError("no"))
        self.world.provider_twin.delays["start"] = 0.0
        client = self.world.ask("/", Accept=HTML)
        self.assertEqual(client.status, 503)
        self.assertIn("text/html", client.headers["content-type"])

    def test_a_script_of_a_page_is_no_navigation(self) -> None:
        client = self.world.ask("/api", Accept=HTML, Sec_Fetch_Mode="cors")
        self.world.let_pass(2.0)
        self.assertFalse(client.answered)


class PrefetchTests(SleepingTestCase):
    def test_it_wakes_nothing(self) -> None:
        for purpose in ({"Sec_Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}):
            client = self.world.ask("/", Accept=HTML, **purpose)
            self.world.let_pass(1.5)
            self.assertEqual(client.status, 503)
        client = self.world.ask("/", Sec_Purpose="prefetch")
        self.assertEqual(json.loads(client.body)["reason"], "prefetch")
        self.assertEqual(self.world.provider_twin.calls, [])

    def test_it_does_not_make_a_machine_either(self) -> None:
        world = World()
        world.ask("/", Sec_Purpose="prefetch")
        world.turn()
        self.assertIsNone(world.real())

    def test_it_is_served_by_what_is_awake(self) -> None:
        self.world.awake()
        client = self.world.ask("/", Sec_Purpose="prefetch")
        self.world.turn()
        self.assertEqual(client.status, 200)

    def test_it_does_not_hold_up_a_machine_on_its_way_to_sleep(self) -> None:
        route = self.world.awake()
        route.machine.rest("idle")
        self.world.ask("/", Sec_Purpose="prefetch")
        self.world.let_pass(0.5)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)


class WebSocketTests(SleepingTestCase):
    def closed_with(self, client: Client, words: bytes) -> None:
        self.assertEqual(client.status, 101, "a browser shows no other status")
        self.assertEqual(client.headers["sec-websocket-accept"], ACCEPTED)
        self.assertEqual(client.body[:1], b"\x88")
        self.assertEqual(int.from_bytes(client.body[2:4], "big"), 1013)
        self.assertIn(words, client.body)

    def test_it_is_held_and_joined(self) -> None:
        self.world.provider_twin.delays["start"] = 5.0
        self.world.place().answer = (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % ACCEPTED.encode()
        )
        client = self.world.ask("/ws", **HANDSHAKE)
        self.world.let_pass(4.0)
        self.assertFalse(client.answered)
        self.world.let_pass(2.0)
        self.assertEqual(client.status, 101)
        self.assertTrue(client.headers["matrix-wake"].startswith("suspended;"))
        client.connection.dataReceived(b"\x81\x82aaaa\x09\x08")
        self.assertTrue(self.world.place().open[-1].transport.data.endswith(b"aaaa\x09\x08"))
        self.assertEqual(self.world.events()[-1], ("wake", "websocket"))

    def test_a_failure_is_told_by_a_close_frame(self) -> None:
        self.world.provider_twin.fail("start", ProviderError("no"))
        client = self.world.ask("/ws", **HANDSHAKE)
        self.closed_with(client, b"The machine could not be started.")
        self.world.let_pass(2.5)
        self.assertTrue(client.transport.disconnecting)

    def test_so_is_the_time_limit(self) -> None:
        self.world.provider_twin.delays["start"] = 45.0
        client = self.world.ask("/ws", **HANDSHAKE)
        self.world.let_pass(31.0, step=0.25)
        self.closed_with(client, b"not ready within 30 s")

    def test_and_a_machine_that_refuses_twice(self) -> None:
        self.world.awake()
        only_answer_probes(self.world)
        client = self.world.ask("/ws", **HANDSHAKE)
        self.world.let_pass(1.0)
        self.closed_with(client, b"accepts no connection")

    def test_the_connection_ends_when_the_client_agrees(self) -> None:
        self.world.provider_twin.fail("start", ProviderError("no"))
        client = self.world.ask("/ws", **HANDSHAKE)
        client.connection.dataReceived(b"\x88\x82aaaa\x62\x94")
        self.assertTrue(client.transport.disconnecting)
        client.leave()
        self.assertEqual(self.world.log.records[-1].status, 101)
        self.assertEqual(self.world.log.records[-1].close_reason, "provider")


def drop_kept(world: World) -> None:
    """The connections that are kept for further requests end."""
    backend = world.route().backend
    assert backend is not None
    while (upstream := backend.take()) is not None:
        upstream.transport.abortConnection()


def only_answer_probes(world: World) -> None:
    """Let the machine refuse the first connection, a request's, and then each second one."""
    drop_kept(world)
    place = world.place()
    place.probe_answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    connect = place.connect

    def alternate(factory: object) -> object:
        place.deaf = not place.deaf
        return connect(factory)

    place.connect = alternate  # type: ignore[method-assign,assignment]


class RefusedConnectionTests(SleepingTestCase):
    """A machine that is believed awake and refuses: wake finds out, once."""

    def setUp(self) -> None:
        super().setUp()
        self.world.awake()
        drop_kept(self.world)

    def test_a_dead_machine_is_started_and_the_request_served(self) -> None:
        self.world.fleet_twin.machines[ALICE].state = MachineState.STOPPED  # unseen
        client = self.world.ask("/after")
        self.world.let_pass(0.3)
        self.assertEqual(client.status, 200)
        self.assertIn("matrix-wake", client.headers)
        self.assertEqual(self.world.fleet_twin.machines[ALICE].boots, 2)

    def test_each_of_many_requests_is_served_by_one_start(self) -> None:
        self.world.fleet_twin.machines[ALICE].state = MachineState.STOPPED
        self.world.provider_twin.calls.clear()
        clients = [self.world.ask() for _ in range(100)]
        self.world.let_pass(1.0)
        self.assertEqual({client.status for client in clients}, {200})
        self.assertEqual(self.world.asked("start"), 1)

    def test_one_that_stays_deaf_is_503_and_never_502(self) -> None:
        self.world.place().deaf = True
        client = self.world.ask("/deaf")
        self.world.let_pass(31.0, step=0.25)
        self.assertEqual(client.status, 503)
        self.assertIn("retry-after", client.headers)

    def test_one_that_answers_the_probe_and_refuses_the_request_is_tried_twice(self) -> None:
        only_answer_probes(self.world)
        client = self.world.ask("/twice")
        self.world.let_pass(1.0)
        self.assertEqual(client.status, 503)
        self.assertEqual(json.loads(client.body)["reason"], "refused")

    def test_a_navigation_is_shown_the_waking_page(self) -> None:
        self.world.fleet_twin.machines[ALICE].state = MachineState.STOPPED
        self.world.provider_twin.delays["start"] = 5.0
        client = self.world.ask("/", Accept=HTML)
        self.world.let_pass(1.2)
        self.assertEqual(client.status, 503)
        self.assertIn(b"/-/wake/events", client.body)


class CrowdTests(SynchronousTestCase):
    def test_one_user_may_keep_only_so_many_waiting(self) -> None:
        world = World(bounds=Bounds(max_waiting=2))
        world.asleep()
        world.provider_twin.delays["start"] = 20.0
        held = [world.ask(), world.ask()]
        refused = world.ask()
        self.assertEqual((refused.status, json.loads(refused.body)["reason"]), (429, "waiting"))
        self.assertIn("retry-after", refused.headers)
        world.let_pass(21.0, step=0.25)
        self.assertEqual([client.status for client in held], [200, 200])

    def test_one_user_may_have_only_so_many_under_way(self) -> None:
        world = World(bounds=Bounds(max_requests=1))
        world.awake()
        world.place().answer = b""
        first = world.ask()
        refused = world.ask()
        self.assertFalse(first.answered)
        self.assertEqual((refused.status, json.loads(refused.body)["reason"]), (429, "in-flight"))
