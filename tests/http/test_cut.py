"""Cutting what is under way: the sender has lost the right to it."""

from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import Blocked, Unauthorized
from matrix.http import FORBIDDEN, UNAUTHORIZED, Backend, Relay, Stream, close_frame
from matrix.testing.relayed import IDLE_TIME, Relayed
from matrix.testing.served import GET, Served, read_answer
from matrix.testing.transport import FakeTransport
from tests.http.test_tunnel import AGREES, ASKS, HELLO
from tests.router.streams import STREAM

BLOCKED = Blocked("Ask the operator.", reason="blocked")
UPLOAD = b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"


class Kept(Relayed):
    """A proxy whose streams are noted as they come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, str]] = []
        self.backend = Backend(
            self.endpoint, self.wheel, self.limits, self.counters, IDLE_TIME, keeper=self
        )

    def begun(self, stream: Stream) -> None:
        self.log.append(("begun", stream.kind))

    def ended(self, stream: Stream) -> None:
        self.log.append(("ended", stream.kind))

    def cut(self) -> None:
        """Cut all that is under way."""
        for exchange in self.factory.exchanges():
            exchange.cut(BLOCKED, FORBIDDEN)

    def assert_nothing_is_left(self, test: SynchronousTestCase) -> None:
        test.assertEqual((self.backend.requests, len(self.backend.streams)), (0, 0))
        test.assertEqual([one.close_reason for one in self.over], ["blocked"])


class RequestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.relayed = Kept()

    def refused(self, client: FakeTransport, machine: FakeTransport) -> None:
        self.relayed.cut()
        answer, rest = read_answer(client.sent)
        self.assertEqual((answer.status, answer.complete, rest), (403, True, b""))
        self.assertEqual(answer.headers[b"connection"], b"close")
        self.assertTrue(machine.aborted)
        self.assertEqual(self.relayed.factory.exchanges(), [])
        self.relayed.assert_nothing_is_left(self)

    def test_before_its_answer(self) -> None:
        self.refused(*self.relayed.ask(GET))

    def test_while_its_body_comes(self) -> None:
        client, machine = self.relayed.ask(UPLOAD, b"x" * 1000)
        self.refused(client, machine)
        taken = len(machine.sent)
        client.receive(b"x" * 1000)
        self.assertEqual(len(machine.sent), taken)

    def test_while_its_machine_does_not_take_its_body(self) -> None:
        client, machine = self.relayed.ask(UPLOAD)
        machine.fill()
        client.receive(b"x" * 1000)
        self.assertTrue(client.paused)
        self.refused(client, machine)
        self.assertFalse(client.paused)  # or it would never learn why

    def test_what_follows_it_is_not_looked_at(self) -> None:
        client, machine = self.relayed.ask(GET + GET)
        self.refused(client, machine)
        self.assertEqual(len(self.relayed.relays), 1)
        client.receive(GET)
        self.assertEqual(len(self.relayed.relays), 1)

    def test_in_the_middle_of_its_answer(self) -> None:
        client, machine = self.relayed.ask(GET)
        machine.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        self.relayed.cut()
        self.assertTrue(client.aborted)
        self.assertFalse(read_answer(client.sent)[0].complete)
        self.assertTrue(machine.aborted)
        client.lose()
        self.relayed.assert_nothing_is_left(self)
        self.assertEqual(self.relayed.over[0].status, 200)

    def test_that_nobody_answers_yet(self) -> None:
        """A held one, whose work is told to end."""
        served, ended = Served(), []
        client = served.connect(GET)
        served.exchanges[0].on_gone(lambda: ended.append(True))
        served.exchanges[0].cut(Unauthorized(reason="revoked"), UNAUTHORIZED)
        self.assertEqual(read_answer(client.sent)[0].status, 401)
        self.assertEqual(ended, [True])

    def test_twice(self) -> None:
        client, _ = self.relayed.ask(GET)
        exchange = self.relayed.factory.exchanges()[0]
        exchange.cut(BLOCKED, FORBIDDEN)
        exchange.cut(BLOCKED, FORBIDDEN)
        self.assertEqual(client.sent.count(b"HTTP/1.1"), 1)
        self.relayed.assert_nothing_is_left(self)


class EventStreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.relayed = Kept()
        self.client, self.machine = self.relayed.ask(GET)
        self.machine.receive(STREAM)

    def test_ends_properly(self) -> None:
        self.assertEqual(self.relayed.log, [("begun", "sse")])
        self.relayed.cut()
        answer, rest = read_answer(self.client.sent)
        self.assertEqual((answer.complete, rest), (True, b""))
        self.assertTrue(self.machine.aborted)
        self.assertEqual(self.relayed.log, [("begun", "sse"), ("ended", "sse")])
        self.relayed.assert_nothing_is_left(self)

    def test_its_end_is_told_once(self) -> None:
        self.client.lose()
        self.machine.lose()
        self.assertEqual(self.relayed.log, [("begun", "sse"), ("ended", "sse")])

    def test_begins_with_its_first_head(self) -> None:
        """A keeper may look at what it is the answer to."""
        relay = self.relayed.relays[0]
        self.assertIsInstance(relay, Relay)
        self.assertIs(relay.exchange.stream, relay)


class WebSocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.relayed = Kept()
        self.client, self.machine = self.relayed.ask(ASKS)
        self.machine.receive(AGREES)
        self.client.take()
        self.machine.take()

    def test_is_closed_with_the_code(self) -> None:
        self.relayed.cut()
        self.assertEqual(self.client.sent, close_frame(4403, "blocked"))
        self.assertTrue(self.machine.disconnecting)
        self.assertEqual(self.relayed.log, [("begun", "websocket"), ("ended", "websocket")])
        self.machine.lose()
        self.relayed.wait(3)
        self.assertTrue(self.client.aborted)
        self.client.lose()
        self.relayed.assert_nothing_is_left(self)

    def test_in_the_middle_of_a_message(self) -> None:
        self.machine.receive(HELLO[:4])
        self.relayed.cut()
        self.assertTrue(self.client.aborted)

    def test_that_is_closing_is_not_waited_for(self) -> None:
        self.relayed.backend.drain("suspended")
        self.relayed.cut()
        self.assertTrue(self.client.aborted)
        self.assertEqual(self.relayed.log, [("begun", "websocket"), ("ended", "websocket")])
