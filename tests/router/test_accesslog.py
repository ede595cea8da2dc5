"""Records reach the file in order; whatever happens to the file, requests do not notice."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.metrics import Counter
from matrix.router.accesslog import (
    BACKLOG,
    BATCH,
    COMPLAINT_INTERVAL,
    FLUSH_INTERVAL,
    FileAccessLog,
    NoAccessLog,
    Record,
    Sink,
    open_access_log,
)

WARM = Record(
    0.0, "", None, b"GET", b"/", 200, 0, 0, *[None] * 5, 0.1, None, "::1", None, None
)  # fmt: skip


class FlakySink:
    """A sink whose disk the test fills."""

    def __init__(self) -> None:
        self.written = b""
        self.room: int | None = None
        self.reopened = 0
        self.closed = False

    def write(self, data: bytes, reopen: bool = False) -> int:
        self.reopened += reopen
        if self.room is None:
            self.written += data
            return len(data)
        if not self.room:
            raise OSError(28, "No space left on device")
        taken, self.room = min(self.room, len(data)), max(0, self.room - len(data))
        self.written += data[:taken]
        return taken

    def close(self) -> None:
        self.closed = True

    @property
    def ids(self) -> list[str]:
        return [json.loads(line)["id"] for line in self.written.splitlines()]


class Threads:
    """Runs functions at once, or keeps them until the test lets them run."""

    def __init__(self) -> None:
        self.held: list[tuple[Deferred[int], Callable[[], int]]] | None = None

    def run(self, function: Callable[[], int]) -> Deferred[int]:
        if self.held is None:
            return execute(function)
        waiting: Deferred[int] = Deferred()
        self.held.append((waiting, function))
        return waiting

    def hold(self) -> None:
        self.held = []

    def release(self) -> None:
        held, self.held = self.held, None
        for waiting, function in held or ():
            execute(function).chainDeferred(waiting)


class FileAccessLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.sink = FlakySink()
        self.threads = Threads()
        self.dropped, self.errors = Counter(), Counter()
        self.log = FileAccessLog(
            self.sink,  # type: ignore[arg-type]
            self.clock,
            self.threads.run,
            self.dropped,
            self.errors,
        )
        self.log.start()

    def add(self, *numbers: int) -> None:
        self.log.add(WARM._replace(request_id=str(number)) for number in numbers)

    def stop(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.log.stop()))

    def test_nothing_is_written_while_requests_run(self) -> None:
        self.add(1, 2)
        self.assertEqual(self.sink.written, b"")
        self.clock.advance(FLUSH_INTERVAL)
        self.assertEqual(self.sink.ids, ["1", "2"])

    def test_a_full_batch_does_not_wait(self) -> None:
        self.add(*range(BATCH))
        self.assertEqual(self.sink.written, b"")
        self.clock.advance(0)
        self.assertEqual(len(self.sink.ids), BATCH)

    def test_many_batches_follow_one_another_in_order(self) -> None:
        self.add(*range(3 * BATCH + 5))
        for _ in range(4):
            self.clock.advance(0)
        self.assertEqual(len(self.sink.ids), 3 * BATCH)
        self.clock.advance(FLUSH_INTERVAL)
        self.assertEqual(self.sink.ids, [str(n) for n in range(3 * BATCH + 5)])

    def test_one_write_at_a_time(self) -> None:
        self.threads.hold()
        self.add(1)
        self.clock.advance(FLUSH_INTERVAL)
        self.add(2)
        self.clock.advance(FLUSH_INTERVAL)
        assert self.threads.held is not None
        self.assertEqual(len(self.threads.held), 1)
        self.threads.release()
        self.clock.advance(FLUSH_INTERVAL)
        self.assertEqual(self.sink.ids, ["1", "2"])

    def test_stop_writes_what_is_left(self) -> None:
        self.add(*range(2 * BATCH + 1))
        self.stop()
        self.assertEqual(len(self.sink.ids), 2 * BATCH + 1)
        self.assertTrue(self.sink.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.dropped.value, 0)

    def test_stop_waits_for_the_write_under_way(self) -> None:
        self.threads.hold()
        self.add(1)
        self.clock.advance(FLUSH_INTERVAL)
        self.add(2)
        stopping = Deferred.fromCoroutine(self.log.stop())
        self.assertNoResult(stopping)
        self.assertFalse(self.sink.closed)
        self.threads.release()
        self.successResultOf(stopping)
        self.assertEqual(self.sink.ids, ["1", "2"])

    def test_a_full_disk_loses_nothing_that_fits_later(self) -> None:
        self.sink.room = 100  # bytes: less than a line
        self.add(1, 2)
        with capturedLogs() as events:
            for _ in range(3):
                self.clock.advance(FLUSH_INTERVAL)
        self.assertEqual(len(self.sink.written), 100)
        self.assertEqual(self.errors.value, 2)
        self.assertEqual(len(events), 1)
        self.assertIn("No space left", events[0]["error"])
        self.sink.room = None
        self.add(3)
        self.clock.advance(FLUSH_INTERVAL)
        self.clock.advance(FLUSH_INTERVAL)
        self.assertEqual(self.sink.ids, ["1", "2", "3"])
        self.assertEqual(self.dropped.value, 0)

    def test_complains_once_a_minute(self) -> None:
        self.sink.room = 0
        self.add(1)
        with capturedLogs() as events:
            self.clock.pump([FLUSH_INTERVAL] * int(2 * COMPLAINT_INTERVAL / FLUSH_INTERVAL))
        self.assertEqual(len(events), 2)

    def test_what_cannot_be_kept_is_dropped_and_counted(self) -> None:
        self.sink.room = 0
        self.add(*range(BATCH))
        self.clock.advance(FLUSH_INTERVAL)
        self.add(*range(BACKLOG + 7))
        self.clock.advance(FLUSH_INTERVAL)
        self.assertEqual(self.dropped.value, 7)
        self.stop()
        self.assertEqual(self.dropped.value, 7 + BACKLOG + BATCH)
        self.assertTrue(self.sink.closed)

    def test_reopen_happens_with_the_next_write_even_if_there_is_none(self) -> None:
        self.log.reopen()
        self.assertEqual(self.sink.reopened, 0)
        self.clock.advance(FLUSH_INTERVAL)
        self.assertEqual(self.sink.reopened, 1)
        self.clock.advance(FLUSH_INTERVAL)
        self.assertEqual(self.sink.reopened, 1)


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        self.path = self.folder / "access.log"

    def test_appends_to_a_file_that_others_may_not_read(self) -> None:
        self.path.write_bytes(b"old\n")
        self.path.unlink()
        mask = os.umask(0)
        self.addCleanup(os.umask, mask)
        for _ in range(2):
            sink = Sink(self.path)
            self.assertEqual(sink.write(b"line\n"), 5)
            sink.close()
        self.assertEqual(self.path.read_bytes(), b"line\nline\n")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)

    def test_follows_a_rotation(self) -> None:
        sink = Sink(self.path)
        self.addCleanup(sink.close)
        sink.write(b"1\n")
        self.path.rename(self.folder / "access.log.1")
        sink.write(b"2\n")
        sink.write(b"3\n", reopen=True)
        self.assertEqual((self.folder / "access.log.1").read_bytes(), b"1\n2\n")
        self.assertEqual(self.path.read_bytes(), b"3\n")

    def test_a_failed_reopen_keeps_the_old_file(self) -> None:
        sink = Sink(self.path)
        self.addCleanup(sink.close)
        moved = self.folder / "moved"
        self.path.rename(moved)
        self.path.mkdir()
        with self.assertRaises(OSError):
            sink.write(b"1\n", reopen=True)
        sink.write(b"2\n")
        self.assertEqual(moved.read_bytes(), b"2\n")

    def test_a_short_write_says_how_much_went_through(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(writer, False)
        sink = Sink(self.path)
        os.dup2(writer, sink._file)
        os.close(writer)
        self.addCleanup(sink.close)
        count = sink.write(b"x" * 1_000_000)
        self.assertTrue(0 < count < 1_000_000, count)
        with self.assertRaises(BlockingIOError):
            sink.write(b"y")


class OpenTests(SynchronousTestCase):
    def open(self, target: str) -> object:
        return open_access_log(target, Clock(), execute, Counter(), Counter())

    def test_off_keeps_nothing(self) -> None:
        log = self.open("off")
        assert isinstance(log, NoAccessLog)
        log.add([WARM])
        log.start()
        log.reopen()
        self.successResultOf(Deferred.fromCoroutine(log.stop()))

    def test_standard_output_is_left_open(self) -> None:
        log = self.open("-")
        assert isinstance(log, FileAccessLog)
        self.successResultOf(Deferred.fromCoroutine(log.stop()))
        os.fstat(1)

    def test_an_unusable_file_is_named(self) -> None:
        with self.assertRaisesRegex(
            ConfigurationError, r"^MATRIX_ACCESS_LOG: cannot open /nowhere/x: No such file"
        ):
            self.open("/nowhere/x")


WRITER = """
import sys
from matrix.router.accesslog import Output, Sink
number, output, lock, lines, size = map(int, sys.argv[1:])
sink = Sink(None, Output(output, lock))
for _ in range(lines):
    sink.write(b"%d" % number * size + b"\\n")
"""


class SharedOutputTests(SynchronousTestCase):
    """Several processes with one standard output, which is a pipe."""

    def test_each_write_is_in_one_piece(self) -> None:
        reading, writing = os.pipe()
        lock = os.memfd_create("lock")
        lines, size = 20, 50_000  # bytes: a pipe keeps no more than 4096 together
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, *map(str, (number, writing, lock, lines, size))],
                pass_fds=[writing, lock],
            )
            for number in range(3)
        ]
        os.close(writing)
        os.close(lock)
        with open(reading, "rb") as pipe:
            written = pipe.read().splitlines()
        self.assertEqual([writer.wait(10) for writer in writers], [0, 0, 0])
        self.assertEqual(len(written), 3 * lines)
        self.assertEqual({(len(line), len(set(line))) for line in written}, {(size, 1)})
