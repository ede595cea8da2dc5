"""The watching thread tells the event loop, recovers from faults, and ends when asked."""

import os
import queue
import threading
from collections.abc import Sequence
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon import watcher as module
from matrix.daemon.changes import Change
from matrix.daemon.paths import text_of
from matrix.daemon.watch import Watch
from matrix.daemon.watcher import Watcher
from matrix.testing.scratch import scratch

PATIENCE = 10.0
"""Seconds to wait for the thread before the test fails."""


class WatcherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = scratch(self)
        self.watch = Watch(os.fsencode(self.root))
        self.batches: queue.Queue[Sequence[Change]] = queue.Queue()
        self.begun = threading.Event()
        self.watcher = Watcher(self.watch, self.batches.put, lambda call, *args: call(*args), 0.001)

    def start(self) -> None:
        begin = self.watch.begin

        def noted() -> None:
            begin()
            self.begun.set()

        self.watch.begin = noted  # type: ignore[method-assign]
        self.watcher.start()
        self.addCleanup(self.watcher.stop)
        self.assertTrue(self.begun.wait(PATIENCE))

    def next(self) -> list[tuple[str, str]]:
        batch = self.batches.get(timeout=PATIENCE)
        return [(str(change.kind), text_of(change.path)) for change in batch]

    def test_changes_reach_the_loop(self) -> None:
        self.start()
        (self.root / "a").touch()
        self.assertEqual(self.next(), [("created", "a")])
        self.assertEqual(self.watcher.state, "ok")

    def test_what_the_api_placed_wakes_it(self) -> None:
        self.start()
        with self.watch.placing((b"a",)) as tell:
            tell(True)
        self.assertEqual(self.next(), [("created", "a")])

    def test_starts_over_after_a_fault(self) -> None:
        failing = threading.Event()

        def broken() -> list[Change]:
            failing.set()
            raise OSError(5, "Input/output error")

        with patch.object(module, "RECOVERY", 0.01):
            self.start()
            take, self.watch.take = self.watch.take, broken  # type: ignore[method-assign]
            (self.root / "a").touch()
            self.assertTrue(failing.wait(PATIENCE))
            self.watch.take = take  # type: ignore[method-assign]
            self.assertEqual(self.next(), [("reset", "")])
        (self.root / "b").touch()
        self.assertEqual(self.next(), [("created", "b")])
        self.assertEqual(self.watcher.state, "ok")
        self.assertGreaterEqual(self.watcher.failures, 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), self.watcher.failures)

    def test_stops_and_lets_go(self) -> None:
        before = threading.active_count()
        watcher = Watcher(Watch(os.fsencode(self.root)), self.batches.put, lambda *_: None)
        watcher.start()
        watcher.stop()
        self.assertEqual(threading.active_count(), before)
        self.watch.close()

    def test_says_when_it_does_not_see_everything(self) -> None:
        self.start()
        self.watch.partial = True
        self.assertEqual(self.watcher.state, "partial")
