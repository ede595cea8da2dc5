"""The loop's lag is how late a timer ran."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.metrics import LoopLag
from matrix.metrics._lag import INTERVAL


class Seen:
    def __init__(self) -> None:
        self.values: list[float] = []

    def observe(self, value: float) -> None:
        self.values.append(value)


class LoopLagTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.seen = Seen()
        self.lag = LoopLag(self.clock, self.seen)

    def test_punctual_loop_has_no_lag(self) -> None:
        self.lag.start()
        for _ in range(5):
            self.clock.advance(INTERVAL)
        self.assertEqual(len(self.seen.values), 5)
        self.assertAlmostEqual(sum(self.seen.values), 0.0)

    def test_a_stall_is_measured_and_measuring_goes_on(self) -> None:
        self.lag.start()
        self.clock.advance(INTERVAL + 0.7)
        self.clock.advance(INTERVAL)
        self.assertAlmostEqual(self.seen.values[0], 0.7)
        self.assertEqual(len(self.seen.values), 2)

    def test_stop_leaves_no_timer(self) -> None:
        self.lag.start()
        self.lag.start()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.lag.stop()
        self.lag.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_starts_again_after_a_stop(self) -> None:
        self.lag.start()
        self.lag.stop()
        self.lag.start()
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.seen.values), 1)
