"""How much is held of bodies that nobody reads yet, and what is said beyond."""

import json

from twisted.trial.unittest import SynchronousTestCase

from matrix.http import Hold
from matrix.testing.served import BodyRecord, Served, read_answer
from matrix.testing.transport import FakeTransport

POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"


class HoldTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.hold = Hold(1500)
        self.served = Served(hold=self.hold)

    def test_counts_what_nobody_reads(self) -> None:
        self.served.connect(POST + b"x" * 600)
        self.assertEqual(self.hold.bytes, 600)
        body = BodyRecord()
        self.served.exchanges[0].receive(body)
        self.assertEqual((self.hold.bytes, body.data), (0, b"x" * 600))

    def test_refuses_what_is_too_much_for_all(self) -> None:
        first, second = (self.served.connect(POST + b"x" * 900) for _ in range(2))
        self.assertEqual(first.sent, b"")
        answer, _ = read_answer(second.sent, b"POST")
        self.assertEqual((answer.status, json.loads(answer.body)["reason"]), (503, "held-bytes"))
        self.assertEqual(self.hold.bytes, 900)

    def test_forgets_clients_that_leave(self) -> None:
        client = self.served.connect(POST + b"x" * 900)
        client.lose()
        self.assertEqual(self.hold.bytes, 0)

    def test_forgets_what_was_answered(self) -> None:
        client: FakeTransport = self.served.connect(POST + b"x" * 900)
        self.served.exchanges[0].respond(200)
        self.assertTrue(client.sent.startswith(b"HTTP/1.1 200"))
        self.assertEqual(self.hold.bytes, 0)
