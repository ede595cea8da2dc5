"""Who has to wait, waits long enough, and is let go in turn and not all at once."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.router.stall import AT_ONCE, STALL, TURN, Stall


class StallTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.stall = Stall(self.clock)
        self.over: list[int] = []

    def wait(self, number: int) -> Deferred[None]:
        waiting = Deferred.fromCoroutine(self.stall())
        waiting.addCallback(lambda _: self.over.append(number))
        return waiting

    def test_nobody_is_let_go_early(self) -> None:
        self.wait(1)
        self.clock.advance(STALL - 0.001)
        self.assertEqual(self.over, [])
        self.clock.advance(0.001)
        self.assertEqual(self.over, [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_waits_for_itself(self) -> None:
        self.wait(1)
        self.clock.advance(STALL / 2)
        self.wait(2)
        self.clock.advance(STALL / 2)
        self.assertEqual(self.over, [1])
        self.clock.advance(STALL / 2)
        self.assertEqual(self.over, [1, 2])

    def test_a_crowd_comes_out_in_order_a_few_at_a_time(self) -> None:
        crowd = range(10 * AT_ONCE)
        for number in crowd:
            self.wait(number)
        self.clock.advance(STALL)
        for turn in range(1, 11):
            self.assertEqual(self.over, list(crowd)[: turn * AT_ONCE])
            self.clock.advance(TURN)
        self.assertEqual(len(self.stall), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_those_who_left_hold_nobody_up(self) -> None:
        for number in range(3 * AT_ONCE):
            waiting = self.wait(number)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        self.wait(99)
        self.clock.advance(STALL)
        self.assertEqual(self.over, [99])

    def test_it_can_be_used_again(self) -> None:
        self.wait(1)
        self.clock.advance(STALL)
        self.wait(2)
        self.clock.advance(STALL)
        self.assertEqual(self.over, [1, 2])
