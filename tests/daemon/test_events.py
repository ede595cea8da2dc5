"""The events API: an event stream that resumes, and a WebSocket that behaves."""

import json

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.uri import parse_uri
from zope.interface.verify import verifyObject

from matrix.api import Api
from matrix.daemon.changes import Change, Kind
from matrix.daemon.events import Events
from matrix.daemon.feed import Feed
from matrix.daemon.sockets import CLOSE_TIMEOUT, QUEUE_LIMIT
from matrix.errors import BadRequest, UpgradeRequired
from matrix.testing.exchange import FakeExchange

HANDSHAKE = {
    "Host": "machine",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class Transport(StringTransport):
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class EventsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.feed, self.clock, self.api = Feed("run"), Clock(), Api()
        Events(self.feed, self.clock.callLater).register(self.api)

    def publish(self, count: int = 1) -> None:
        self.feed.publish([Change(Kind.CREATED, (b"file",), 0.0)] * count)

    def followers(self) -> int:
        return len(self.feed._followers)


class StreamTests(EventsCase):
    def open(self, target: str = "/v1/events", **headers: str) -> FakeExchange:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return FakeExchange.of("GET", target, fields).handle(self.api)

    def test_tells_where_it_begins_then_each_event(self) -> None:
        self.publish(3)
        exchange = self.open()
        self.assertEqual(exchange.answer, b"id: run-3\n\n")
        exchange.written.clear()
        self.publish()
        self.assertTrue(exchange.answer.startswith(b"id: run-4\nevent: file\ndata: {"))
        self.assertTrue(exchange.answer.endswith(b"}\n\n"))

    def test_resumes_where_the_client_was(self) -> None:
        self.publish(3)
        for exchange in (self.open(last_event_id="run-1"), self.open("/v1/events?after=run-1")):
            self.assertEqual(exchange.answer.count(b"event: file\n"), 2)
            self.assertIn(b"id: run-2\n", exchange.answer)

    def test_says_look_again_when_it_cannot(self) -> None:
        self.publish()
        self.assertIn(b"id: run-1\nevent: reset\n", self.open(last_event_id="old-1").answer)

    def test_heartbeat(self) -> None:
        exchange = self.open()
        exchange.written.clear()
        self.feed.heartbeat()
        self.assertEqual(exchange.answer, b": beat\n\n")

    def test_client_who_leaves_is_forgotten(self) -> None:
        exchange = self.open()
        self.assertEqual(self.followers(), 1)
        exchange.leave()
        self.assertEqual(self.followers(), 0)

    def test_slow_client_is_cut_off_and_forgotten(self) -> None:
        exchange = self.open()
        assert exchange.producer is not None
        exchange.producer.pauseProducing()
        self.publish(QUEUE_LIMIT + 1)
        self.assertEqual((exchange.state, self.followers()), ("aborted", 0))

    def test_stopping_daemon_ends_it_properly(self) -> None:
        exchange = self.open()
        self.feed.end()
        self.assertEqual(exchange.state, "ended")

    def test_head_ends_at_once(self) -> None:
        exchange = FakeExchange.of("HEAD", "/v1/events").handle(self.api)
        self.assertEqual((exchange.status, exchange.state), (200, "ended"))
        self.assertEqual(self.followers(), 0)


class SocketTests(EventsCase):
    def open(self, target: str = "/v1/events/ws") -> FakeExchange:
        self.client = ClientProtocol(parse_uri("ws://machine" + target))
        asked = self.client.connect()
        self.client.send_request(asked)
        exchange = FakeExchange.of("GET", target, dict(asked.headers.raw_items()))
        self.transport = exchange.transport = Transport()
        exchange.handle(self.api)
        head = b"".join(b"%b: %b\r\n" % field for field in exchange.headers)
        self.client.receive_data(b"HTTP/1.1 101 Switching Protocols\r\n" + head + b"\r\n")
        self.client.data_to_send()
        self.client.events_received()
        return exchange

    def frames(self) -> list[Frame]:
        self.client.receive_data(self.transport.value())
        self.transport.clear()
        return [event for event in self.client.events_received() if isinstance(event, Frame)]

    def say(self, exchange: FakeExchange) -> None:
        assert exchange.upgraded is not None
        for data in self.client.data_to_send():
            if data:
                exchange.upgraded.dataReceived(data)

    def test_handshake(self) -> None:
        exchange = FakeExchange.of("GET", "/v1/events/ws", HANDSHAKE).handle(self.api)
        self.assertEqual(exchange.state, "upgraded")
        # RFC 6455 section 1.3 gives this very pair of key and answer.
        self.assertEqual(
            dict(exchange.headers)[b"Sec-WebSocket-Accept"], b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        )

    def test_event_is_a_text_frame_of_the_same_json(self) -> None:
        self.open()
        self.publish()
        (frame,) = self.frames()
        self.assertEqual(frame.opcode, Opcode.TEXT)
        self.assertEqual(json.loads(frame.data)["path"], "file")
        self.assertEqual(json.loads(frame.data)["id"], "run-1")

    def test_resumes(self) -> None:
        self.publish(3)
        self.open("/v1/events/ws?after=run-1")
        ids = [json.loads(frame.data)["id"] for frame in self.frames()]
        self.assertEqual(ids, ["run-2", "run-3"])

    def test_answers_ping(self) -> None:
        exchange = self.open()
        self.client.send_ping(b"there?")
        self.say(exchange)
        (frame,) = self.frames()
        self.assertEqual((frame.opcode, frame.data), (Opcode.PONG, b"there?"))

    def test_heartbeat_is_a_ping(self) -> None:
        self.open()
        self.feed.heartbeat()
        self.assertEqual([frame.opcode for frame in self.frames()], [Opcode.PING])

    def test_close_is_answered_and_forgotten(self) -> None:
        exchange = self.open()
        self.client.send_close(1000)
        self.say(exchange)
        self.assertEqual(self.frames()[0].opcode, Opcode.CLOSE)
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.followers(), 0)
        self.publish()
        self.assertEqual(self.transport.value(), b"")

    def test_slow_reader_is_closed_with_1013(self) -> None:
        exchange = self.open()
        producer = self.transport.producer
        self.assertTrue(verifyObject(IPushProducer, producer))
        producer.pauseProducing()
        self.publish(QUEUE_LIMIT)
        self.assertEqual(self.transport.value(), b"")
        self.publish()
        (frame,) = self.frames()
        self.assertEqual(Close.parse(frame.data).code, 1013)
        self.assertEqual(self.followers(), 0)
        self.assertIsNotNone(exchange.upgraded)

    def test_reader_who_catches_up_gets_everything_in_order(self) -> None:
        self.open()
        self.transport.producer.pauseProducing()
        self.publish(5)
        self.transport.producer.resumeProducing()
        ids = [json.loads(frame.data)["id"] for frame in self.frames()]
        self.assertEqual(ids, [f"run-{number}" for number in range(1, 6)])

    def test_client_that_does_not_answer_the_close_is_cut_off(self) -> None:
        self.open()
        self.feed.end()
        self.assertEqual(Close.parse(self.frames()[0].data).code, 1012)
        self.assertFalse(self.transport.aborted)
        self.clock.advance(CLOSE_TIMEOUT)
        self.assertTrue(self.transport.aborted)

    def test_lost_connection_is_forgotten_with_its_timer(self) -> None:
        exchange = self.open()
        self.feed.end()
        assert exchange.upgraded is not None
        exchange.upgraded.connectionLost(None)  # type: ignore[arg-type]
        self.assertEqual((self.followers(), self.clock.getDelayedCalls()), (0, []))

    def test_long_message_is_closed_with_1009(self) -> None:
        exchange = self.open()
        self.client.send_text(b"x" * 5000)
        self.say(exchange)
        self.assertEqual(Close.parse(self.frames()[0].data).code, 1009)
        self.assertEqual(self.followers(), 0)

    def test_short_messages_are_ignored(self) -> None:
        exchange = self.open()
        self.client.send_text(b"hello")
        self.say(exchange)
        self.assertEqual(self.frames(), [])
        self.assertEqual(self.followers(), 1)

    def test_plain_request_is_told_to_upgrade(self) -> None:
        exchange = FakeExchange.of("GET", "/v1/events/ws", {"Host": "x"}).handle(self.api)
        assert isinstance(exchange.error, UpgradeRequired)
        self.assertEqual(exchange.error.headers, ((b"upgrade", b"websocket"),))

    def test_wrong_handshake_is_refused(self) -> None:
        headers = {**HANDSHAKE, "Sec-WebSocket-Key": "short"}
        exchange = FakeExchange.of("GET", "/v1/events/ws", headers).handle(self.api)
        self.assertIsInstance(exchange.error, BadRequest)
        self.assertEqual(self.followers(), 0)
