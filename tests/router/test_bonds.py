"""Bonds: streams end with the right of their session, and not before."""

from __future__ import annotations

import gc
from collections.abc import Collection, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import DirectoryUnavailable
from matrix.http import Backend, close_frame
from matrix.metrics import series
from matrix.model import Principal
from matrix.router.bonds import (
    BATCH,
    RENEW_INTERVAL,
    RENEW_TIMEOUT,
    Bond,
    Bonds,
    Sources,
)
from tests.router.streams import STREAM, open_websocket
from tests.router.world import ALICE, GRACE, NOW, Client, World

LIFE = 100.0
"""Seconds that alice's short-lived token is good for."""
SLACK = 1.0
"""Seconds by which the wheel and the batches may be late."""


class BondCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.accept("short", LIFE)
        self.world.awake()

    def accept(self, token: str, life: float, session: str = "a") -> None:
        """One more good token of alice's."""
        principal = Principal(ALICE, session, self.world.clock.seconds() + life)
        self.world.gate.accept(token.encode(), principal)

    def websocket(self, token: str = "short") -> Client:
        client = open_websocket(self.world, token)
        client.reset()
        return client

    def events(self, token: str = "short") -> Client:
        self.world.place().answer = STREAM
        client = self.world.ask("/events", token=token)
        self.world.let_pass(0.2)
        self.assertEqual(client.status, 200)
        return client.reset()

    def show(self, token: str) -> None:
        """A request with that token is answered."""
        self.world.place().answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        client = self.world.ask(token=token)
        self.world.let_pass(0.2)
        self.assertEqual(client.status, 200)

    def pass_to(self, seconds: float) -> None:
        """Until so long after the test's beginning."""
        self.world.let_pass(seconds - (self.world.clock.seconds() - NOW), step=0.25)

    def assert_open(self, *clients: Client) -> None:
        for client in clients:
            self.assertEqual((client.transport.data, client.transport.disconnecting), (b"", False))

    def assert_expired(self, *clients: Client) -> None:
        for client in clients:
            self.assertEqual(client.transport.data, close_frame(4401, "expired"))

    def ended(self, kind: str) -> float:
        return self.world.registry.counter(series.RIGHTS_LOST, kind, "expired").value


class ExpiryTests(BondCase):
    def test_streams_end_a_grace_after_their_token(self) -> None:
        socket, events = self.websocket(), self.events()
        self.pass_to(LIFE + GRACE - SLACK)
        self.assert_open(socket, events)
        self.pass_to(LIFE + GRACE + SLACK)
        self.assert_expired(socket)
        self.assertEqual(events.transport.data, b"0\r\n\r\n")
        self.assertFalse(events.transport.disconnecting)
        self.assertEqual((self.ended("websocket"), self.ended("sse")), (1, 1))
        self.assertEqual(len(self.world.bonds), 0)

    def test_the_access_log_says_why(self) -> None:
        self.events()
        self.pass_to(LIFE + GRACE + SLACK)
        self.assertEqual(self.world.log.records[-1].close_reason, "expired")

    def test_a_newer_token_of_the_session_extends_them(self) -> None:
        socket, events = self.websocket(), self.events()
        self.pass_to(LIFE + GRACE / 2)
        self.accept("newer", LIFE)
        self.show("newer")
        self.pass_to(LIFE + GRACE / 2 + LIFE + GRACE - SLACK)
        self.assert_open(socket, events)
        self.pass_to(LIFE + GRACE / 2 + LIFE + GRACE + 2 * SLACK)
        self.assert_expired(socket)

    def test_a_newer_token_of_another_session_does_not(self) -> None:
        socket = self.websocket()
        self.accept("other", 10 * LIFE, session="b")
        self.show("other")
        self.pass_to(LIFE + GRACE + SLACK)
        self.assert_expired(socket)

    def test_a_stream_with_a_newer_token_extends_the_others(self) -> None:
        socket = self.websocket()
        self.accept("newer", 2 * LIFE)
        newer = self.websocket("newer")
        self.pass_to(2 * LIFE + GRACE - SLACK)
        self.assert_open(socket, newer)
        self.pass_to(2 * LIFE + GRACE + 2 * SLACK)
        self.assert_expired(socket, newer)

    def test_what_another_router_has_seen_extends_them(self) -> None:
        other = World(owner="router:2", within=self.world)
        socket = self.websocket()
        self.pass_to(LIFE)
        principal = Principal(ALICE, "a", NOW + 2 * LIFE)
        other.gate.accept(b"newer", principal)
        other.awake()
        other.ask(token="newer")
        self.pass_to(LIFE + GRACE + SLACK)
        self.assert_open(socket)
        self.pass_to(2 * LIFE + GRACE + SLACK)
        self.assert_expired(socket)

    def test_of_a_token_within_the_leeway_the_grace_begins_with_the_stream(self) -> None:
        socket = self.websocket()
        began = self.world.clock.seconds() - NOW
        backend = self.world.route().backend
        assert backend is not None
        [stream] = backend.streams
        self.world.bonds.ended(stream)
        stream.exchange.story.principal = Principal(ALICE, "late", NOW + began - 20)
        self.world.bonds.begun(stream)
        self.pass_to(began + GRACE - SLACK)
        self.assert_open(socket)
        self.pass_to(began + GRACE + SLACK)
        self.assert_expired(socket)

    def test_in_the_middle_of_a_message_there_is_no_place_for_a_code(self) -> None:
        socket = self.websocket()
        machine = self.world.place().open[-1]
        self.world.place().say(machine, b"\x82\x7e\x01\x00half")
        self.pass_to(LIFE + GRACE + SLACK)
        self.assertTrue(socket.transport.aborted)


class UnreachableTests(BondCase):
    def test_without_the_directory_what_is_known_here_decides(self) -> None:
        socket = self.websocket()
        self.accept("newer", 2 * LIFE)
        other = self.websocket("newer")
        self.world.store.lose()
        self.pass_to(LIFE + GRACE + SLACK)
        self.assert_open(socket, other)
        self.pass_to(2 * LIFE + GRACE + SLACK)
        self.assert_expired(socket, other)

    def test_nor_with_a_directory_that_fails(self) -> None:
        async def fail(session_ids: Collection[str]) -> Mapping[str, float]:
            raise ZeroDivisionError

        self.world.bonds.ask(Sources(self.world.gate.newest, fail))
        socket = self.websocket()
        self.pass_to(LIFE + GRACE + SLACK)
        self.assert_expired(socket)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_what_is_seen_while_the_directory_answers_counts(self) -> None:
        asked: Deferred[Mapping[str, float]] = Deferred()

        async def ask(session_ids: Collection[str]) -> Mapping[str, float]:
            return {} if asked.called else await asked

        self.world.bonds.ask(Sources(self.world.gate.newest, ask))
        socket = self.websocket()
        self.pass_to(LIFE + GRACE + SLACK)
        self.accept("newer", LIFE)
        self.show("newer")
        asked.errback(DirectoryUnavailable("no answer"))
        self.world.turn()
        self.assert_open(socket)
        self.pass_to(2 * (LIFE + GRACE + SLACK) + SLACK)
        self.assert_expired(socket)


class GoneTests(BondCase):
    """Bonds are there for as long as there are streams."""

    def test_streams_that_end_by_themselves(self) -> None:
        socket, events = self.websocket(), self.events()
        self.assertEqual(list(self.world.bonds), ["a"])
        socket.leave()
        self.assertEqual(len(self.world.bonds), 1)
        events.leave()
        self.assertEqual(len(self.world.bonds), 0)
        self.pass_to(LIFE + GRACE + SLACK)
        self.assertEqual((self.ended("websocket"), self.ended("sse")), (0, 0))

    def test_a_machine_that_goes_to_sleep(self) -> None:
        socket = self.websocket()
        self.world.route().machine.rest("operator")
        self.world.let_pass(1)
        self.assertEqual(socket.transport.data[2:4], (1012).to_bytes(2, "big"))
        self.assertEqual(len(self.world.bonds), 0)

    def test_nothing_of_them_is_held(self) -> None:
        """Wherever: many streams are over within seconds, and tokens live for an hour."""
        for _ in range(10):
            self.websocket().leave()
        self.world.let_pass(3)
        gc.collect()
        self.assertEqual([one for one in gc.get_objects() if isinstance(one, Bond)], [])

    def test_a_session_that_comes_back(self) -> None:
        self.websocket().leave()
        self.accept("newer", 2 * LIFE)
        socket = self.websocket("newer")
        self.pass_to(2 * LIFE + GRACE - SLACK)
        self.assert_open(socket)


class RenewalTests(BondCase):
    """Sessions that the router itself keeps: their browsers need send no request."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[float] = []
        self.answers: list[Any] = []
        world = self.world

        async def renew(session_id: str) -> float | None:
            self.asked.append(world.clock.seconds() - NOW)
            answer = self.answers.pop(0) if self.answers else None
            if isinstance(answer, Exception):
                raise answer
            return await answer if isinstance(answer, Deferred) else answer

        world.bonds.ask(Sources(world.gate.newest, world.store.sessions.newest, renew))

    def cookie(self) -> Client:
        """A WebSocket of a browser with our own cookie."""
        client = open_websocket(
            self.world, None, Cookie="__Host-matrix=short", Origin="https://door"
        )
        return client.reset()

    def test_they_are_renewed_when_their_token_expires(self) -> None:
        self.answers = [NOW + 2 * LIFE]
        socket = self.cookie()
        self.pass_to(LIFE + SLACK)
        self.assertEqual(len(self.asked), 1)
        self.pass_to(2 * LIFE - SLACK)
        self.assertEqual(len(self.asked), 1)
        self.assert_open(socket)

    def test_it_is_tried_again_until_the_grace_is_over(self) -> None:
        self.answers = [None, ValueError("the issuer is down"), NOW + 5 * LIFE]
        socket = self.cookie()
        self.pass_to(LIFE + 2 * RENEW_INTERVAL + 3 * SLACK)
        self.assertEqual(len(self.asked), 3)
        self.pass_to(5 * LIFE - SLACK)
        self.assert_open(socket)

    def test_who_was_renewed_for_a_short_time_need_not_wait_for_the_next(self) -> None:
        short = RENEW_INTERVAL / 3
        self.answers = [NOW + LIFE + short, NOW + 5 * LIFE]
        self.cookie()
        self.pass_to(LIFE + short + SLACK)
        self.assertEqual(len(self.asked), 2)

    def test_then_it_ends_like_any_other(self) -> None:
        socket = self.cookie()
        self.pass_to(LIFE + GRACE - SLACK)
        self.assert_open(socket)
        self.pass_to(LIFE + GRACE + SLACK)
        self.assert_expired(socket)
        self.assertIn(len(self.asked), (4, 5))

    def test_an_issuer_that_never_answers_saves_nobody(self) -> None:
        self.answers = [Deferred(), Deferred(), Deferred()]
        socket = self.cookie()
        self.pass_to(LIFE + 2 * RENEW_TIMEOUT + 2 * SLACK)
        self.assert_expired(socket)

    def test_sessions_of_others_are_not_renewed(self) -> None:
        socket = self.websocket()
        self.pass_to(LIFE + GRACE + SLACK)
        self.assert_expired(socket)
        self.assertEqual(self.asked, [])


class ClockTests(BondCase):
    """Tokens expire by the calendar, which may be set; the wheel goes by another clock."""

    def setUp(self) -> None:
        super().setUp()
        self.set_by = 0.0
        world = self.world
        now = world.clock.seconds
        world.bonds = Bonds(
            world.clock, world.wheel, world.registry, GRACE, lambda: now() + self.set_by
        )
        world.bonds.ask(Sources(world.gate.newest, world.store.sessions.newest))
        backend = world.route().backend
        assert isinstance(backend, Backend)
        backend._keeper = world.bonds

    def test_set_forward(self) -> None:
        socket = self.websocket("alice-token")
        self.set_by = 3600.0
        self.world.let_pass(GRACE + SLACK, step=0.25)
        self.assert_expired(socket)

    def test_set_back(self) -> None:
        socket = self.websocket()
        self.set_by = -50.0
        self.pass_to(LIFE + GRACE + SLACK)
        self.assert_open(socket)
        self.pass_to(LIFE + 50 + GRACE + SLACK)
        self.assert_expired(socket)


class CrowdTests(BondCase):
    """Thousands of sessions may expire in one second."""

    COUNT = 1000

    def test_one_question_for_all_and_others_have_their_turn(self) -> None:
        asked: list[int] = []

        async def ask(session_ids: Collection[str]) -> Mapping[str, float]:
            asked.append(len(session_ids))
            return dict.fromkeys([*session_ids][::2], NOW + 1000.0)

        self.world.bonds.ask(Sources(self.world.gate.newest, ask))
        sockets = []
        for number in range(self.COUNT):
            token = f"token-{number}"
            self.world.gate.accept(token.encode(), Principal(ALICE, token, NOW + 500.0))
            sockets.append(open_websocket(self.world, token, wait=0.0).reset())
        self.world.gate.newest = lambda session_id: 0.0  # type: ignore[method-assign]
        self.pass_to(500 + GRACE - SLACK)
        self.assert_open(*sockets)
        most, before = 0, 0
        for _ in range(2000):
            self.world.clock.advance(0.001)
            now = int(self.ended("websocket"))
            most, before = max(most, now - before), now
        self.assertEqual(before, self.COUNT // 2 if len(asked) else 0)
        self.assertEqual(asked, [self.COUNT])
        self.assertLessEqual(most, BATCH)
        self.assertEqual(len(self.world.bonds), self.COUNT // 2)
