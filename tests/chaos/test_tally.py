"""What explains that a client saw what it did."""

from __future__ import annotations

from unittest import TestCase
from unittest.mock import patch

from tests.chaos.tally import KILL_SHOWS, Outages, Stalls


class Case(TestCase):
    now = 100.0

    def setUp(self) -> None:
        clock = patch("tests.chaos.tally.time.monotonic", lambda: self.now)
        clock.start()
        self.addCleanup(clock.stop)


class StallTests(Case):
    def test_the_longest_of_late(self) -> None:
        stalls = Stalls()
        self.assertEqual(stalls.longest(), 0.0)
        stalls.note(3.0)
        self.now = 110.0
        stalls.note(1.0)
        self.assertEqual((stalls.longest(), stalls.longest(105.0)), (3.0, 1.0))
        self.assertEqual(stalls.longest(111.0), 0.0)


class OutageTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.outages = Outages()
        with self.outages.of("a", "kill"):
            self.assertTrue(self.outages.explain("a", 100.0))
            self.assertFalse(self.outages.explain("b", 100.0))
            self.now = 103.0

    def test_who_began_before_its_end_may_have_been_cut(self) -> None:
        self.assertTrue(self.outages.explain("a", 103.0 + KILL_SHOWS))
        self.assertFalse(self.outages.explain("a", 103.5 + KILL_SHOWS))

    def test_a_client_that_was_kept_waiting_notices_late(self) -> None:
        self.now = 109.0
        self.outages.stalls.note(4.0)
        self.assertTrue(self.outages.explain("a", 106.0))
        self.assertFalse(self.outages.explain("a", 109.5))
