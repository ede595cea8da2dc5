"""Bodies flow in bounded memory: the slower side sets the pace."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from matrix.daemon.transfer import CHUNK, Gate, Upload, download
from matrix.errors import ClientGone, InsufficientStorage, InternalError
from matrix.testing.exchange import FakeExchange

HALF = bytes(CHUNK // 2)


class UploadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = FakeExchange()
        self.writes: list[tuple[bytes, Deferred[None]]] = []
        self.upload = Upload(self.exchange, self.write)
        self.exchange.receive(self.upload)

    def write(self, chunks: Sequence[bytes]) -> Deferred[None]:
        result: Deferred[None] = Deferred()
        self.writes.append((b"".join(chunks), result))
        return result

    def written(self, number: int) -> None:
        self.writes[number][1].callback(None)

    def test_empty_body_is_complete_at_once(self) -> None:
        self.upload.body_end()
        self.assertEqual(self.writes, [])
        self.successResultOf(self.upload.done)

    def test_small_pieces_are_gathered(self) -> None:
        for piece in (b"a", b"b", b"c"):
            self.upload.body_data(piece)
        self.assertEqual(self.writes, [])
        self.upload.body_end()
        self.assertEqual(self.writes[0][0], b"abc")
        self.assertNoResult(self.upload.done)
        self.written(0)
        self.successResultOf(self.upload.done)

    def test_slow_disk_pauses_the_client(self) -> None:
        self.upload.body_data(HALF)
        self.upload.body_data(HALF)
        self.assertEqual(len(self.writes), 1)
        self.upload.body_data(HALF)
        self.assertFalse(self.exchange.body_paused)
        self.upload.body_data(HALF)
        self.assertTrue(self.exchange.body_paused)
        self.assertEqual(len(self.writes), 1)
        self.written(0)
        self.assertFalse(self.exchange.body_paused)
        self.assertEqual(len(self.writes), 2)

    def test_one_write_at_a_time_and_everything_in_order(self) -> None:
        pieces = [bytes([number]) * (CHUNK // 4) for number in range(10)]
        for piece in pieces:
            self.upload.body_data(piece)
        self.upload.body_end()
        number = 0
        while not self.upload.done.called:
            self.assertEqual(len(self.writes), number + 1)
            self.written(number)
            number += 1
        self.assertEqual(b"".join(data for data, _ in self.writes), b"".join(pieces))

    def test_lost_body_is_told(self) -> None:
        self.upload.body_data(b"half")
        self.upload.body_lost(ClientGone())
        self.failureResultOf(self.upload.done, ClientGone)
        self.assertEqual(self.writes, [])

    def test_failed_write_is_told_and_the_rest_dropped(self) -> None:
        self.upload.body_data(HALF + HALF)
        self.writes[0][1].errback(InsufficientStorage())
        self.failureResultOf(self.upload.done, InsufficientStorage)
        self.upload.body_data(HALF + HALF)
        self.upload.body_end()
        self.assertEqual(len(self.writes), 1)

    def test_client_lost_during_a_write(self) -> None:
        self.upload.body_data(HALF + HALF)
        self.upload.done.addErrback(lambda _: None)
        self.upload.done.cancel()
        self.upload.body_lost(ClientGone())
        self.written(0)
        self.assertEqual(len(self.writes), 1)


class FakeFile:
    """The read half of an open file; each read is answered when the test says."""

    def __init__(self, content: bytes, at_once: bool = True) -> None:
        self.content = content
        self.at_once = at_once
        self.reads: list[tuple[int, int]] = []
        self.pending: list[Deferred[bytes]] = []

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        self.reads.append((offset, size))
        if self.at_once:
            return succeed(self.content[offset : offset + size])
        self.pending.append(Deferred())
        return self.pending[-1]

    def answer(self) -> None:
        offset, size = self.reads[-len(self.pending)]
        self.pending.pop(0).callback(self.content[offset : offset + size])


class DownloadTests(SynchronousTestCase):
    def start(self, file: FakeFile, wanted: range | None = None) -> FakeExchange:
        exchange = FakeExchange()
        wanted = range(len(file.content)) if wanted is None else wanted
        exchange.begin(200, length=len(wanted))
        exchange.spawn(download(exchange, wanted, file.read))
        return exchange

    def test_sends_exactly_what_is_wanted(self) -> None:
        content = bytes(range(256)) * (CHUNK // 100)
        for wanted in (range(len(content)), range(7, 8), range(CHUNK - 1, 2 * CHUNK + 1)):
            exchange = self.start(FakeFile(content), wanted)
            self.assertEqual(exchange.answer, content[wanted.start : wanted.stop])
            self.assertEqual(exchange.state, "ended")

    def test_reads_one_chunk_ahead(self) -> None:
        file = FakeFile(bytes(3 * CHUNK), at_once=False)
        exchange = self.start(file)
        self.assertEqual(len(file.reads), 1)
        file.answer()
        self.assertEqual(len(exchange.written), 1)
        self.assertEqual(file.reads, [(0, CHUNK), (CHUNK, CHUNK)])

    def test_slow_reader_pauses_reading(self) -> None:
        file = FakeFile(bytes(5 * CHUNK), at_once=False)
        exchange = self.start(file)
        assert exchange.producer is not None
        exchange.producer.pauseProducing()
        file.answer()
        file.answer()
        self.assertEqual(len(exchange.written), 1)
        self.assertEqual(len(file.reads), 2)
        exchange.producer.resumeProducing()
        self.assertEqual(len(exchange.written), 2)
        self.assertEqual(len(file.reads), 3)

    def test_file_that_shrinks_cuts_the_answer_off(self) -> None:
        file = FakeFile(b"short")
        exchange = self.start(file, range(10))
        self.assertIsInstance(exchange.error, InternalError)
        self.assertEqual(exchange.state, "aborted")

    def test_reader_who_leaves_ends_it(self) -> None:
        file = FakeFile(bytes(5 * CHUNK), at_once=False)
        exchange = self.start(file)
        assert exchange.producer is not None
        exchange.producer.pauseProducing()
        file.answer()
        exchange.leave()
        exchange.producer.resumeProducing()
        self.assertEqual(len(exchange.written), 1)

    def test_gate_is_a_push_producer(self) -> None:
        self.assertTrue(verifyObject(IPushProducer, Gate()))
