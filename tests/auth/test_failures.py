"""The limit on refused tokens: how much an address may fail, and that the table is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Failures
from matrix.auth._failures import FLOOD, FLOOD_WINDOW, MOST, WINDOW

PLACE, OTHER = "192.0.2.1", "192.0.2.2"


class FailuresTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.failures = Failures(60, self.clock.seconds)

    def fail(self, address: str = PLACE, times: int = 60) -> None:
        for _ in range(times):
            self.failures.failed(address)

    def test_nobody_waits_at_first(self) -> None:
        self.assertEqual(self.failures.wait(PLACE), 0.0)
        self.assertEqual(self.failures.limited(), 0)

    def test_a_minutes_worth_may_fail_at_once(self) -> None:
        self.fail(times=59)
        self.assertEqual(self.failures.wait(PLACE), 0.0)
        self.fail(times=1)
        self.assertAlmostEqual(self.failures.wait(PLACE), 1.0)
        self.assertEqual(self.failures.limited(), 1)

    def test_other_addresses_do_not_wait(self) -> None:
        self.fail()
        self.assertEqual(self.failures.wait(OTHER), 0.0)

    def test_as_many_again_in_a_minute(self) -> None:
        self.fail()
        checked = 0
        for _ in range(600):
            self.clock.advance(0.1)
            if not self.failures.wait(PLACE):
                checked += 1
                self.failures.failed(PLACE)
        self.assertAlmostEqual(checked, 60, delta=1)

    def test_after_a_quiet_minute_all_is_forgiven(self) -> None:
        self.fail()
        self.clock.advance(WINDOW)
        self.fail(times=59)
        self.assertEqual(self.failures.wait(PLACE), 0.0)

    def test_failures_that_were_under_way_are_not_forgotten(self) -> None:
        self.fail(times=120)
        self.assertAlmostEqual(self.failures.wait(PLACE), 61.0)

    def test_a_flood_is_of_all_addresses_together(self) -> None:
        self.assertFalse(self.failures.flooded())
        for number in range(int(FLOOD * FLOOD_WINDOW)):
            self.assertFalse(self.failures.flooded(), number)
            self.failures.failed(f"198.51.100.{number % 250}")
        self.assertTrue(self.failures.flooded())
        self.assertEqual(self.failures.wait(PLACE), 0.0)

    def test_a_flood_ends_however_high_it_was(self) -> None:
        for number in range(20_000):
            self.failures.failed(f"198.51.100.{number % 250}")
        self.clock.advance(1 / FLOOD)
        self.assertFalse(self.failures.flooded())
        self.failures.failed(PLACE)
        self.assertTrue(self.failures.flooded())
        self.clock.advance(FLOOD_WINDOW)
        for _ in range(int(FLOOD * FLOOD_WINDOW) - 1):
            self.failures.failed(PLACE)
        self.assertFalse(self.failures.flooded())

    def test_a_flood_is_noticed_without_any_limit_for_an_address(self) -> None:
        failures = Failures(0, self.clock.seconds)
        for _ in range(int(FLOOD * FLOOD_WINDOW)):
            failures.failed(PLACE)
        self.assertTrue(failures.flooded())
        self.assertEqual((failures.wait(PLACE), len(failures)), (0.0, 0))

    def test_no_limit(self) -> None:
        self.failures = Failures(0, self.clock.seconds)
        self.fail(times=1000)
        self.assertEqual((self.failures.wait(PLACE), len(self.failures)), (0.0, 0))
        self.assertEqual(self.failures.limited(), 0)

    def test_a_limit_of_one(self) -> None:
        self.failures = Failures(1, self.clock.seconds)
        self.assertEqual(self.failures.wait(PLACE), 0.0)
        self.fail(times=1)
        self.assertAlmostEqual(self.failures.wait(PLACE), 60.0)

    def test_an_ipv6_network_is_one_address(self) -> None:
        self.fail("2001:db8:1:2::1", 30)
        self.fail("2001:0DB8:1:2:ffff::9", 30)
        self.assertGreater(self.failures.wait("2001:db8:1:2:3:4:5:6"), 0.0)
        self.assertEqual(self.failures.wait("2001:db8:1:3::1"), 0.0)
        self.assertEqual(len(self.failures), 1)

    def test_what_is_no_address_counts_as_it_is(self) -> None:
        for name in ("local", "fe80::1%eth0", ":", "a:b", ""):
            self.fail(name)
            self.assertGreater(self.failures.wait(name), 0.0, name)

    def test_the_table_is_bounded_and_the_oldest_goes(self) -> None:
        self.fail()
        for number in range(MOST - 1):
            self.failures.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        self.assertEqual(len(self.failures), MOST)
        self.assertGreater(self.failures.wait(PLACE), 0.0)
        self.failures.failed(PLACE)  # it goes on, and so it is not the oldest
        self.failures.failed(OTHER)
        self.assertEqual(len(self.failures), MOST)
        self.assertGreater(self.failures.wait(PLACE), 0.0)

    @given(st.lists(st.floats(0, 30), max_size=200), st.integers(1, 20))
    def test_never_more_than_granted(self, pauses: list[float], granted: int) -> None:
        """Whoever asks first, in any rhythm, fails at most twice the grant in any minute."""
        clock = Clock()
        failures = Failures(granted, clock.seconds)
        failed: list[float] = []
        for pause in pauses:
            clock.advance(pause)
            if not failures.wait(PLACE):
                failures.failed(PLACE)
                failed.append(clock.seconds())
        for start in failed:
            within = sum(start <= moment < start + WINDOW for moment in failed)
            self.assertLessEqual(within, 2 * granted)
