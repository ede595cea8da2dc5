"""The access log over real files, threads and a pipe that nobody reads."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from matrix.metrics import Counter
from matrix.router.accesslog import AccessLog, Record, open_access_log

COUNT = 5000
"""Records: several batches, and more than a pipe holds (64 KiB)."""


def record(number: int) -> Record:
    return Record(
        1.795e9, str(number), None, b"GET", b"/", 200, 0, 0, *[None] * 5, 0.1, None, "", None, None
    )  # type: ignore[arg-type]


class AccessLogTests(TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "access.log"
        self.dropped, self.errors = Counter(), Counter()

    def open(self) -> AccessLog:
        log = open_access_log(str(self.path), reactor, deferToThread, self.dropped, self.errors)
        log.start()
        return log

    def ids(self, path: Path) -> list[int]:
        return [int(json.loads(line)["id"]) for line in path.read_text().splitlines()]

    async def test_every_record_is_written_across_a_rotation(self) -> None:
        log = self.open()
        for number in range(COUNT):
            log.add([record(number)])
        while not self.path.stat().st_size:
            await deferLater(reactor, 0.01)
        moved = self.folder / "access.log.1"
        self.path.rename(moved)
        log.reopen()
        for number in range(COUNT, 2 * COUNT):
            log.add([record(number)])
        await log.stop()
        self.assertEqual(self.ids(moved) + self.ids(self.path), [*range(2 * COUNT)])
        self.assertEqual((self.dropped.value, self.errors.value), (0, 0))

    async def test_a_reader_that_stopped_reading_holds_up_nothing(self) -> None:
        os.mkfifo(self.path)
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        log = self.open()
        for number in range(COUNT):
            log.add([record(number)])
        # The pipe is full and the write blocks; the event loop goes on all the same.
        for _ in range(5):
            await deferLater(reactor, 0.02)
        stopping = Deferred.fromCoroutine(log.stop())
        found = b""
        while not stopping.called:
            try:
                found += os.read(reader, 1 << 20)
            except BlockingIOError:
                await deferLater(reactor, 0.01)
            else:
                await deferLater(reactor, 0)
        found += os.read(reader, 1 << 20)
        os.close(reader)
        await stopping
        lines = found.splitlines()
        self.assertEqual([int(json.loads(line)["id"]) for line in lines], [*range(COUNT)])
