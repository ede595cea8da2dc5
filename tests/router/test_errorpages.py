"""Errors are shown as their reader can use them, and counted by their rule."""

from __future__ import annotations

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import Forbidden, Unavailable
from matrix.metrics import series
from matrix.router.closing import LINGER, WebSocketGoodbye
from tests.router.world import Transport, World


class RenderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.error: Exception = Unavailable("Come back.", reason="busy", retry_after=2.2)

        def refuse(exchange: object) -> None:
            raise self.error

        self.world.factory.handler = refuse

    def test_programs_get_a_problem(self) -> None:
        client = self.world.ask("/x")
        self.assertEqual(client.headers["content-type"], "application/problem+json")
        self.assertEqual(client.headers["retry-after"], "3")
        problem = json.loads(client.body)
        self.assertEqual(problem["type"], "urn:matrix:problem:unavailable")
        self.assertEqual((problem["reason"], problem["detail"]), ("busy", "Come back."))

    def test_browsers_get_a_page_with_the_same_fields(self) -> None:
        client = self.world.ask("/x?<y>", Accept="text/html")
        self.assertEqual(client.status, 503)
        self.assertIn("text/html", client.headers["content-type"])
        self.assertEqual(client.headers["retry-after"], "3")
        self.assertEqual(client.headers["cache-control"], "no-store")
        self.assertIn(b"Come back.", client.body)
        self.assertNotIn(b"<y>", client.body)

    def test_each_is_counted(self) -> None:
        self.error = Forbidden(reason="origin")
        self.world.ask()
        self.world.ask(Accept="text/html")
        counter = self.world.registry.counter(series.REFUSED, "forbidden", "origin")
        self.assertEqual(counter.value, 2)

    def test_a_failure_of_ours_tells_nothing_but_the_id(self) -> None:
        self.error = ArithmeticError("the secret is hidden")
        client = self.world.ask()
        self.assertEqual(client.status, 500)
        self.assertNotIn(b"hidden", client.body)
        self.assertIn("request_id", json.loads(client.body))
        self.assertEqual(len(self.flushLoggedErrors(ArithmeticError)), 1)


class GoodbyeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.transport = Clock(), Transport()
        self.goodbye = WebSocketGoodbye(self.clock, b"\x88\x02\x03\xf5")
        self.goodbye.makeConnection(self.transport)  # type: ignore[arg-type]

    def test_it_sends_its_frame_and_waits(self) -> None:
        self.assertEqual(self.transport.data, b"\x88\x02\x03\xf5")
        self.assertFalse(self.transport.disconnecting)

    def test_it_goes_when_the_client_says_goodbye(self) -> None:
        self.goodbye.dataReceived(b"\x81\x80aaaa")
        self.assertFalse(self.transport.disconnecting)
        self.goodbye.dataReceived(b"\x88\x80aaaa")
        self.assertTrue(self.transport.disconnecting)

    def test_or_after_a_while(self) -> None:
        self.clock.advance(LINGER)
        self.assertTrue(self.transport.disconnecting)
