"""Bodies pass in bounded memory: whoever is slow makes the other side wait."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ClientGone
from matrix.snapshots._streaming import CHUNK, receive, send
from matrix.snapshots.interfaces import StoreUnavailable
from matrix.testing.exchange import FakeExchange


class SlowWriting:
    """A writing that answers when the test says so."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.pending: Deferred[None] | None = None

    def write(self, chunks: Sequence[bytes]) -> Deferred[None]:
        assert self.pending is None, "written before the last one was done"
        self.written.append(b"".join(chunks))
        self.pending = Deferred()
        return self.pending

    def commit(self) -> Deferred[None]:
        raise AssertionError("that is the caller's")

    def abort(self) -> None:
        raise AssertionError("that is the caller's")

    def answer(self) -> None:
        """The present write is done."""
        pending, self.pending = self.pending, None
        assert pending is not None
        pending.callback(None)


class SlowReading:
    """A reading of C{size} bytes that answers when the test says so."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.wanted = range(size)
        self.asked: list[Deferred[bytes]] = []

    def read(self, size: int) -> Deferred[bytes]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def close(self) -> None:
        raise AssertionError("that is the caller's")


class ReceiveTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = FakeExchange()
        self.writing = SlowWriting()
        self.receiving = Deferred.fromCoroutine(receive(self.exchange, self.writing))
        assert self.exchange.sink is not None
        self.sink = self.exchange.sink

    def test_small_pieces_are_gathered(self) -> None:
        for _ in range(10):
            self.sink.body_data(b"x" * 1000)
        self.assertEqual(self.writing.written, [])
        self.sink.body_end()
        self.assertEqual(self.writing.written, [b"x" * 10_000])
        self.writing.answer()
        self.successResultOf(self.receiving)

    def test_the_client_waits_for_the_store(self) -> None:
        self.sink.body_data(b"a" * CHUNK)
        self.assertEqual(len(self.writing.written), 1)
        self.sink.body_data(b"b" * (CHUNK - 1))
        self.assertFalse(self.exchange.body_paused)
        self.sink.body_data(b"b")
        self.assertTrue(self.exchange.body_paused)
        self.writing.answer()
        self.assertFalse(self.exchange.body_paused)
        self.assertEqual(self.writing.written[1], b"b" * CHUNK)
        self.sink.body_end()
        self.writing.answer()
        self.successResultOf(self.receiving)

    def test_an_empty_body(self) -> None:
        self.sink.body_end()
        self.successResultOf(self.receiving)
        self.assertEqual(self.writing.written, [])

    def test_a_lost_body(self) -> None:
        self.sink.body_data(b"a" * CHUNK)
        self.sink.body_lost(ClientGone())
        self.writing.answer()
        self.failureResultOf(self.receiving, ClientGone)

    def test_a_lost_body_while_waiting(self) -> None:
        self.sink.body_lost(ClientGone())
        self.failureResultOf(self.receiving, ClientGone)


class SendTests(SynchronousTestCase):
    def begin(self, size: int) -> None:
        """Send so many bytes."""
        self.exchange = FakeExchange()
        self.exchange.begin(200, length=size)
        self.reading = SlowReading(size)
        self.sending = Deferred.fromCoroutine(send(self.exchange, self.reading))

    def test_nothing(self) -> None:
        self.begin(0)
        self.assertEqual((self.exchange.state, self.reading.asked), ("ended", []))

    def test_one_chunk_is_fetched_ahead_and_no_more(self) -> None:
        self.begin(3 * CHUNK)
        self.assertEqual(len(self.reading.asked), 1)
        assert self.exchange.producer is not None
        self.exchange.producer.pauseProducing()
        self.reading.asked[0].callback(b"a" * CHUNK)
        self.assertEqual(len(self.reading.asked), 2)
        self.reading.asked[1].callback(b"b" * CHUNK)
        self.assertEqual((len(self.reading.asked), len(self.exchange.written)), (2, 1))
        self.exchange.producer.resumeProducing()
        self.assertEqual((len(self.reading.asked), len(self.exchange.written)), (3, 2))
        self.reading.asked[2].callback(b"c" * CHUNK)
        self.successResultOf(self.sending)
        self.assertEqual(self.exchange.state, "ended")
        self.assertEqual(len(self.exchange.answer), 3 * CHUNK)

    def test_less_than_promised(self) -> None:
        self.begin(10)
        self.reading.asked[0].callback(b"")
        self.failureResultOf(self.sending, StoreUnavailable)
        self.assertEqual(self.exchange.state, "begun")

    def test_leaving_lets_go_of_what_is_fetched(self) -> None:
        self.begin(2 * CHUNK)
        self.sending.cancel()
        self.failureResultOf(self.sending)
        self.assertTrue(self.reading.asked[0].called)
