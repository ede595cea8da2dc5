"""Waiting with a limit, and without holding on."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import DirectoryUnavailable
from matrix.directory._deferreds import shielded, within


class WithinTests(SynchronousTestCase):
    """L{within}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.work: Deferred[int] = Deferred()
        self.aborts: list[bool] = []
        self.result = within(self.clock, 2, self.work, lambda: self.aborts.append(True))

    def test_in_time(self) -> None:
        self.work.callback(5)
        self.assertEqual(self.successResultOf(self.result), 5)
        self.assertEqual((self.aborts, self.clock.getDelayedCalls()), ([], []))

    def test_failure_in_time(self) -> None:
        self.work.errback(ZeroDivisionError())
        self.failureResultOf(self.result, ZeroDivisionError)
        self.assertEqual((self.aborts, self.clock.getDelayedCalls()), ([], []))

    def test_late(self) -> None:
        self.clock.advance(2)
        error = self.failureResultOf(self.result, DirectoryUnavailable)
        self.assertIn("did not answer within 2 s", str(error.value))
        self.assertEqual(self.aborts, [True])
        self.work.errback(ZeroDivisionError())  # what the abort led to: nobody's concern

    def test_cancelled(self) -> None:
        self.result.cancel()
        self.failureResultOf(self.result, CancelledError)
        self.assertEqual((self.aborts, self.clock.getDelayedCalls()), ([True], []))
        self.work.callback(5)

    def test_done_at_once(self) -> None:
        self.work.callback(7)
        again = within(self.clock, 2, self.work, lambda: None)
        self.successResultOf(again)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ShieldedTests(SynchronousTestCase):
    """L{shielded}."""

    def test_passes_on(self) -> None:
        work: Deferred[int] = Deferred()
        result = shielded(work)
        self.assertNoResult(result)
        work.callback(5)
        self.assertEqual(self.successResultOf(result), 5)

    def test_the_work_outlives_its_audience(self) -> None:
        cancelled: list[object] = []
        for end in ("callback", "errback"):
            work: Deferred[object] = Deferred(cancelled.append)
            result = shielded(work)
            result.cancel()
            self.failureResultOf(result, CancelledError)
            getattr(work, end)(ZeroDivisionError())
        self.assertEqual(cancelled, [])
