"""A client that was accepted only to be told why it must go again."""

import json

from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import Unavailable
from matrix.testing.served import GET, Served, read_answer

FULL = Unavailable("Too many connections are open.", reason="connections", retry_after=1.0)


class RefusedClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.served = Served()

    def test_is_told_at_once_without_having_asked(self) -> None:
        client = self.served.connect(refusal=FULL)
        answer, _ = read_answer(client.sent)
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.headers[b"connection"], b"close")
        self.assertEqual(answer.headers[b"retry-after"], b"1")
        self.assertEqual(json.loads(answer.body)["reason"], "connections")
        self.assertEqual([exchange.status for exchange in self.served.over], [503])
        self.assertEqual(self.served.over[0].close_reason, "connections")

    def test_is_let_go_of_whether_it_likes_or_not(self) -> None:
        client = self.served.connect(refusal=FULL)
        client.receive(GET)  # what it still sends is nobody's
        self.assertEqual(self.served.exchanges, [])
        self.served.wait(self.served.limits.linger - 1)
        self.assertFalse(client.disconnecting)
        self.served.wait(2)
        self.assertTrue(client.aborted)

    def test_those_inside_are_served(self) -> None:
        inside = self.served.connect()
        self.served.connect(refusal=FULL)
        inside.receive(GET)
        self.assertEqual(len(self.served.exchanges), 1)
