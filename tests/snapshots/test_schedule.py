"""Snapshots are due in time, apart from each other, and less often while they fail."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.snapshots.schedule import FIRST_RETRY, LONGEST_RETRY, SPREAD, Schedule

intervals = st.floats(min_value=1.0, max_value=86400.0)
chances = st.floats(min_value=0.0, max_value=1.0)
failures = st.integers(min_value=1, max_value=10**9)


class ScheduleTests(SynchronousTestCase):
    @given(intervals, chances)
    def test_nobody_waits_longer_than_an_interval(self, interval: float, chance: float) -> None:
        schedule = Schedule(interval)
        for seconds in (schedule.first(chance), schedule.next(chance)):
            self.assertGreater(seconds, 0.0)
            self.assertLessEqual(seconds, interval * 1.000001)

    @given(intervals, chances)
    def test_nobody_is_asked_much_more_often(self, interval: float, chance: float) -> None:
        self.assertGreaterEqual(Schedule(interval).next(chance), interval * (1 - SPREAD) * 0.999999)

    @given(intervals, chances, failures)
    def test_a_failure_is_tried_again_neither_at_once_nor_never(
        self, interval: float, chance: float, count: int
    ) -> None:
        seconds = Schedule(interval).retry(count, chance)
        self.assertGreaterEqual(seconds, FIRST_RETRY * (1 - SPREAD) * 0.999999)
        self.assertLessEqual(seconds, LONGEST_RETRY)

    @given(intervals, chances, failures)
    def test_each_failure_in_a_row_puts_the_next_attempt_off_no_less(
        self, interval: float, chance: float, count: int
    ) -> None:
        schedule = Schedule(interval)
        self.assertLessEqual(schedule.retry(count, chance), schedule.retry(count + 1, chance))

    @given(intervals, chances, failures)
    def test_what_an_operator_must_mend_is_not_tried_often(
        self, interval: float, chance: float, count: int
    ) -> None:
        seconds = Schedule(interval).retry(count, chance, worth_it=False)
        self.assertGreaterEqual(seconds, LONGEST_RETRY * (1 - SPREAD) * 0.999999)

    def test_a_crowd_is_spread_over_the_interval(self) -> None:
        schedule = Schedule(300.0)
        times = [schedule.first(number / 100) for number in range(101)]
        self.assertAlmostEqual(min(times), 60.0)
        self.assertAlmostEqual(max(times), 300.0)
        self.assertLess(max(after - before for before, after in pairwise(times)), 3.0)
