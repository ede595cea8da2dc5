"""A few seconds of what script/siege does in minutes: users come in, and nobody else."""

from __future__ import annotations

import sys
from typing import ClassVar
from unittest import TestCase

from tests.siege.siege import LIMITED, Plan, Report, Siege

FAILURES = 60
"""For each address and minute: the plan's addresses use it up."""


class SiegeTests(TestCase):
    unlimited: ClassVar[Report]
    limited: ClassVar[Report]

    @classmethod
    def setUpClass(cls) -> None:
        plan = Plan(tokens=1500, connections=60, addresses=6, calm=0.5, seconds=5.0)
        cls.unlimited = Siege(plan, auth_failures=0).run()
        cls.limited = Siege(plan, auth_failures=FAILURES, workers=2).run()
        for report in (cls.unlimited, cls.limited):
            sys.stdout.write("\n" + "\n".join(report.lines()) + "\n")

    def test_nothing_was_that_must_not_be(self) -> None:
        self.assertEqual(self.unlimited.faults(), [])
        self.assertEqual(self.limited.faults(), [])

    def test_each_kind_is_refused_for_its_own_reason(self) -> None:
        refused = self.unlimited.refused
        self.assertEqual(sum(refused.values()), self.unlimited.shown)
        for reason in ("unknown-key", "signature", "algorithm"):
            self.assertGreater(refused[reason], 100, reason)

    def test_addresses_over_their_bound_are_told_so(self) -> None:
        """The bound is that of each worker."""
        looked_at = self.limited.shown - self.limited.refused[LIMITED]
        self.assertGreater(self.limited.refused[LIMITED], 0)
        self.assertLessEqual(looked_at, 2 * 6 * FAILURES * 1.5)

    def test_the_issuer_hardly_notices(self) -> None:
        for report in (self.unlimited, self.limited):
            self.assertLessEqual(report.fetches, report.after.servers)

    def test_memory_is_bounded(self) -> None:
        """A hundred connections and a thousand forgeries leave no more than their buffers."""
        for report in (self.unlimited, self.limited):
            self.assertLess(report.after.memory - report.before.memory, 30 * 2**20)
