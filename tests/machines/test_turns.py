"""Tests for taking turns on a machine."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from matrix.machines._turns import Turns, shielded


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns = Turns()
        self.log: list[str] = []

    def visit(self, name: str, leave: Deferred[None]) -> Deferred[None]:
        async def stay() -> None:
            async with self.turns.turn(name, self.take) as descriptor:
                os.fstat(descriptor)
                self.log.append(f"in {name}")
                await leave
                self.log.append(f"out {name}")

        return Deferred.fromCoroutine(stay())

    def take(self) -> Deferred[int]:
        return succeed(os.open("/", os.O_RDONLY))

    def test_one_after_the_other_in_order(self) -> None:
        doors: list[Deferred[None]] = [Deferred() for _ in range(3)]
        visits = [self.visit("a", door) for door in doors]
        self.assertEqual(self.log, ["in a"])
        for door in doors:
            door.callback(None)
        for each in visits:
            self.successResultOf(each)
        self.assertEqual(self.log, ["in a", "out a"] * 3)

    def test_names_do_not_wait_for_one_another(self) -> None:
        first: Deferred[None] = Deferred()
        self.visit("a", first)
        self.successResultOf(self.visit("b", succeed(None)))
        self.assertEqual(self.log, ["in a", "in b", "out b"])
        first.callback(None)

    def test_a_failure_gives_the_turn_back(self) -> None:
        door: Deferred[None] = Deferred()
        visit = self.visit("a", door)
        door.errback(ZeroDivisionError())
        self.failureResultOf(visit, ZeroDivisionError)
        self.successResultOf(self.visit("a", succeed(None)))

    def test_what_is_not_in_use_is_forgotten(self) -> None:
        for name in ("a", "b"):
            self.successResultOf(self.visit(name, succeed(None)))
        self.assertEqual(self.turns._locks, {})

    def test_drained_when_all_have_left(self) -> None:
        door: Deferred[None] = Deferred()
        self.visit("a", door)
        drained = Deferred.fromCoroutine(self.turns.drained())
        self.assertNoResult(drained)
        door.callback(None)
        self.successResultOf(drained)


class ShieldedTests(SynchronousTestCase):
    def test_results_and_failures_pass(self) -> None:
        work: Deferred[int] = Deferred()
        waiting = shielded(work)
        work.callback(3)
        self.assertEqual(self.successResultOf(waiting), 3)
        work = Deferred()
        waiting = shielded(work)
        work.errback(ZeroDivisionError())
        self.failureResultOf(waiting, ZeroDivisionError)

    def test_the_work_goes_on_without_its_caller(self) -> None:
        cancelled: list[object] = []
        work: Deferred[int] = Deferred(cancelled.append)
        waiting = shielded(work)
        waiting.cancel()
        self.failureResultOf(waiting)
        work.callback(3)
        self.assertEqual(cancelled, [])

    def test_a_failure_that_nobody_waits_for_is_logged(self) -> None:
        work: Deferred[int] = Deferred()
        waiting = shielded(work)
        waiting.cancel()
        self.failureResultOf(waiting)
        work.errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
