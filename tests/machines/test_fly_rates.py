"""Fly's limits as we keep them: never exceeded, the urgent first, nobody starved or lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.machines import _fly_rates
from matrix.machines._fly_rates import READING, USUAL, Priority, Rate, RateLimiter, urgency

WAKE, HOUSEKEEPING = Priority.WAKE, Priority.HOUSEKEEPING


class UrgencyTests(SynchronousTestCase):
    def test_somebody_who_waits_comes_first_and_nobody_last(self) -> None:
        causes = ("request", "alarm", "snapshot", "survey")
        self.assertEqual([urgency(cause) for cause in causes], sorted(Priority))
        for cause in ("navigation", "websocket", "operator", None):
            self.assertEqual(urgency(cause), WAKE)


class LimiterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.limiter = RateLimiter(self.clock)
        self.went: list[tuple[float, str]] = []

    def ask(
        self, name: str = "", priority: Priority = WAKE, key: str = "start m1", rate: Rate = USUAL
    ) -> Deferred[None]:
        def note(result: None) -> None:
            self.went.append((round(self.clock.seconds(), 3), name))

        return self.limiter.turn(key, rate, priority).addCallback(note)

    def pass_time(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and calls[0].getTime() <= end:
            self.clock.advance(max(0.0, calls[0].getTime() - self.clock.seconds()))
        self.clock.advance(end - self.clock.seconds())

    def test_after_a_restart_nothing_is_left_of_a_burst(self) -> None:
        """A process before us may just have had it."""
        self.limiter = RateLimiter(self.clock, restarted=True)
        for number in range(3):
            self.ask(str(number))
        self.pass_time(10)
        for number in range(3):
            self.ask(str(number), key="start m2")
        self.assertEqual(self.times(), [0.0, 1.0, 2.0, 10.0, 10.0, 10.0])

    def times(self) -> list[float]:
        return [at for at, _ in self.went]

    def test_a_burst_then_one_per_second(self) -> None:
        for _ in range(6):
            self.ask()
        self.pass_time(10)
        self.assertEqual(self.times(), [0, 0, 0, 1, 2, 3])

    def test_reading_is_faster(self) -> None:
        for _ in range(12):
            self.ask(rate=READING)
        self.pass_time(10)
        self.assertEqual(self.times(), [0.0] * 10 + [0.2, 0.4])

    def test_what_was_not_used_comes_back_up_to_the_burst(self) -> None:
        for _ in range(3):
            self.ask()
        self.pass_time(60)
        for _ in range(4):
            self.ask()
        self.pass_time(2)
        self.assertEqual(self.times(), [0, 0, 0, 60, 60, 60, 61])

    def test_each_has_its_own(self) -> None:
        for number in range(500):
            self.ask(key=f"start m{number}")
        self.assertEqual(self.times(), [0] * 500)

    def test_the_urgent_go_first(self) -> None:
        for _ in range(3):
            self.ask("first")
        for priority in reversed(Priority):
            self.ask(priority.name, priority)
        self.pass_time(5)
        self.assertEqual(
            [name for _, name in self.went[3:]], [priority.name for priority in Priority]
        )

    def test_equals_go_in_the_order_they_came(self) -> None:
        for number in range(6):
            self.ask(str(number))
        self.pass_time(5)
        self.assertEqual([name for _, name in self.went], list("012345"))

    def test_who_gave_up_takes_nobody_elses_turn(self) -> None:
        for _ in range(3):
            self.ask()
        given_up = self.ask("given up")
        self.ask("next")
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)  # type: ignore[no-untyped-call]
        self.pass_time(1)
        self.assertEqual(self.went[3:], [(1.0, "next")])

    def test_a_refusal_closes_for_as_long_as_it_says(self) -> None:
        self.ask()
        self.limiter.refused("start m1", USUAL, 5.0)
        self.ask()
        self.ask()
        self.pass_time(10)
        self.assertEqual(self.times(), [0, 5, 5])

    def test_a_refusal_that_says_nothing(self) -> None:
        self.ask()
        self.limiter.refused("start m1", USUAL, None)
        self.ask()
        self.pass_time(10)
        self.assertEqual(self.times(), [0, 1])

    def test_full_buckets_are_not_kept(self) -> None:
        self.patch(_fly_rates, "SWEEP_SIZE", 10)
        self.limiter = RateLimiter(self.clock)
        for number in range(1000):
            self.ask(key=f"start m{number}")
            self.pass_time(0.5)
        self.assertLess(len(self.limiter), 25)
        self.assertEqual(len(self.went), 1000)

    @settings(max_examples=50)
    @given(st.lists(st.tuples(st.sampled_from(Priority), st.sampled_from([0, 0.1, 0.5, 3]))))
    def test_never_faster_than_fly_takes_them(self, calls: list[tuple[Priority, float]]) -> None:
        self.setUp()
        for priority, pause in calls:
            self.ask(priority=priority)
            self.pass_time(pause)
        self.pass_time(len(calls) + 1)
        times = self.times()
        self.assertEqual(len(times), len(calls))
        for index, at in enumerate(times):
            for later in range(index + 3, len(times)):
                self.assertGreaterEqual(times[later] - at, later - index - 2 - 0.001)
