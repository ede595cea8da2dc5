"""An event stream is exact on the wire, and bounded when its reader is slow."""

from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from matrix.api import EventStream
from matrix.testing.exchange import FakeExchange


class EventStreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = FakeExchange()
        self.closed: list[EventStream] = []
        self.stream = EventStream(self.exchange, self.closed.append, limit=3)
        self.stream.begin()
        self.exchange.written.clear()

    def test_head_is_that_of_an_event_stream(self) -> None:
        self.assertEqual(self.exchange.status, 200)
        self.assertEqual(self.exchange.header(b"content-type"), b"text/event-stream; charset=utf-8")
        self.assertEqual(self.exchange.header(b"cache-control"), b"no-cache, no-transform")
        self.assertIsNone(self.exchange.length)

    def test_is_a_push_producer(self) -> None:
        self.assertTrue(verifyObject(IPushProducer, self.exchange.producer))

    def test_sends_an_event_in_one_write(self) -> None:
        self.stream.send("file", '{"a":1}', "7")
        self.assertEqual(self.exchange.written, [b'id: 7\nevent: file\ndata: {"a":1}\n\n'])

    def test_data_of_several_lines_stays_one_event(self) -> None:
        self.stream.send("note", "a\nb\r\nc\rd")
        self.assertEqual(
            self.exchange.answer, b"event: note\ndata: a\ndata: b\ndata: c\ndata: d\n\n"
        )

    def test_refuses_a_name_or_id_that_would_forge_fields(self) -> None:
        for event, id in (("a\nb", None), ("a", "1\rdata: x"), ("a", "1\0")):
            self.assertRaises(ValueError, self.stream.send, event, "", id)
        self.assertEqual(self.exchange.written, [])

    def test_heartbeat_is_a_comment(self) -> None:
        self.stream.heartbeat()
        self.assertEqual(self.exchange.written, [b": beat\n\n"])

    def test_paused_reader_gets_everything_later_in_order(self) -> None:
        self.stream.pauseProducing()
        for number in range(3):
            self.stream.send("n", str(number))
        self.stream.heartbeat()
        self.assertEqual(self.exchange.written, [])
        self.stream.resumeProducing()
        self.assertEqual(
            self.exchange.answer, b"".join(b"event: n\ndata: %d\n\n" % n for n in range(3))
        )

    def test_reader_paused_again_while_catching_up_is_left_alone(self) -> None:
        self.stream.pauseProducing()
        for number in range(3):
            self.stream.send("n", str(number))
        write = self.exchange.write

        def pausing(data: bytes) -> None:
            write(data)
            self.stream.pauseProducing()

        self.exchange.write = pausing  # type: ignore[method-assign]
        self.stream.resumeProducing()
        self.assertEqual(len(self.exchange.written), 1)

    def test_reader_too_far_behind_is_cut_off(self) -> None:
        self.stream.pauseProducing()
        for number in range(4):
            self.stream.send("n", str(number))
        self.assertEqual(self.exchange.state, "aborted")
        self.assertEqual(self.closed, [self.stream])
        self.stream.send("n", "late")
        self.stream.resumeProducing()
        self.assertEqual(self.exchange.written, [])

    def test_end_sends_what_waits_and_ends_properly(self) -> None:
        self.stream.pauseProducing()
        self.stream.send("n", "1")
        self.stream.end()
        self.stream.end()
        self.assertEqual(self.exchange.answer, b"event: n\ndata: 1\n\n")
        self.assertEqual(self.exchange.state, "ended")
        self.assertEqual(self.closed, [self.stream])

    def test_reader_who_leaves_is_forgotten_once(self) -> None:
        self.exchange.leave()
        self.stream.stopProducing()
        self.stream.send("n", "1")
        self.stream.heartbeat()
        self.assertEqual(self.closed, [self.stream])
        self.assertEqual(self.exchange.written, [])
