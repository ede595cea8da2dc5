"""What past wakes teach: estimates and pauses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import Past
from matrix.errors import Unavailable
from matrix.model import UserId
from matrix.router.history import FIRST, LONGEST, estimate, pause, still
from matrix.router.pauses import Pauses, paused

ALICE = UserId("0a1b2c3d-0000-4000-8000-00000000000a")

SECONDS = st.floats(0.001, 1000)


class EstimateTests(SynchronousTestCase):
    def test_nothing_is_known_of_what_never_woke(self) -> None:
        self.assertIsNone(estimate(Past(), "suspended"))

    def test_wakes_from_the_same_state_count(self) -> None:
        past = Past((("suspended", 0.4), ("stopped", 9.0), ("suspended", 0.4)))
        self.assertApproximates(estimate(past, "suspended"), 0.4, 1e-9)
        self.assertApproximates(estimate(past, "stopped"), 9.0, 1e-9)

    def test_others_do_where_there_are_none(self) -> None:
        self.assertEqual(estimate(Past((("suspended", 0.4),)), "failed"), 0.4)

    def test_the_newest_counts_most_and_one_odd_one_does_not_decide(self) -> None:
        past = Past((("suspended", 10.0), ("suspended", 1.0), ("suspended", 1.0)))
        self.assertApproximates(estimate(past, "suspended"), 3.7, 1e-9)

    @given(st.lists(SECONDS, min_size=1))
    def test_it_lies_among_what_was_seen(self, wakes: list[float]) -> None:
        found = estimate(Past(tuple(("suspended", one) for one in wakes)), "suspended")
        assert found is not None
        self.assertGreaterEqual(found, min(wakes) * 0.999)
        self.assertLessEqual(found, max(wakes) * 1.001)


class PauseTests(SynchronousTestCase):
    @given(st.integers(1, 100_000))
    def test_each_failure_makes_it_no_shorter_and_never_too_long(self, failures: int) -> None:
        self.assertTrue(FIRST <= pause(failures) <= pause(failures + 1) <= LONGEST)

    def test_what_has_passed_is_over(self) -> None:
        self.assertEqual(pause(0), 0.0)
        self.assertEqual(still(Past()), 0.0)
        self.assertEqual(still(Past(failures=3, failed_ago=1.5)), 2.5)
        self.assertEqual(still(Past(failures=3, failed_ago=100.0)), 0.0)


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pauses = Pauses(self.clock)

    def failed(self, reason: str = "provider") -> None:
        self.pauses.note(ALICE, Unavailable("no", reason=reason, retry_after=4.0))

    def test_it_is_told_how_long_it_lasts_and_ends_by_itself(self) -> None:
        self.failed()
        self.clock.advance(1.0)
        found = self.pauses.check(ALICE)
        assert found is not None
        self.assertEqual((found.reason, found.retry_after), ("paused", 3.0))
        self.clock.advance(3.0)
        self.assertIsNone(self.pauses.check(ALICE))

    def test_a_refusal_within_a_pause_makes_it_no_longer(self) -> None:
        self.failed()
        self.clock.advance(1.0)
        self.pauses.note(ALICE, paused(3.0))
        self.clock.advance(3.0)
        self.assertIsNone(self.pauses.check(ALICE))

    def test_what_may_be_over_in_a_moment_is_no_reason(self) -> None:
        self.failed("directory")
        self.assertIsNone(self.pauses.check(ALICE))

    def test_it_is_forgotten_when_something_happened(self) -> None:
        for who in (ALICE, None):
            self.failed()
            self.pauses.forget(who)
            self.assertIsNone(self.pauses.check(ALICE))
