"""Some seconds of what script/chaos does in fifteen minutes: nothing wrong, lost or leaked."""

from __future__ import annotations

import sys
from unittest import TestCase

from tests.chaos.chaos import Chaos
from tests.chaos.disturber import Pace

SECONDS = 10.0
"""Of chaos: a router starts in three or four."""

USERS = 8


class ChaosTests(TestCase):
    def test_chaos_leaves_everything_as_it_should_be(self) -> None:
        chaos = Chaos("acceptance", USERS, rate=0.02, idle=3.0, pace=Pace(4.0, 9.0, 7.0))
        chaos.run(SECONDS)
        sys.stdout.write(f"\n{chaos.report()}\n")
        self.assertEqual(chaos.tally.faults, [])
        self.assertEqual(chaos.tally.count("afterwards", "2xx"), USERS)
        for done in ("Fly killed", "supervisor killed"):
            self.assertGreater(chaos.outages.count[done], 0, done)
