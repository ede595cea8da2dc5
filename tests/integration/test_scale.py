"""A small twin of script/scale: a start scans no table, and users who are known take little."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.scale.scale import ENTRY, LIMITS, SCANS, START_FETCHES, START_READS, Scale


class ScaleTests(TestCase):
    """Enough users for PostgreSQL to prefer an index, and for what is made once not to count."""

    timeout = 120

    async def test_what_many_users_cost(self) -> None:
        scale = Scale(20_000, 15_000, 200)
        self.addCleanup(scale.close)
        scale.fill()
        figures = scale.start()
        figures |= await scale.unknown(reactor)
        figures |= await scale.remember(reactor)
        # How long something takes on a busy host says nothing: script/scale measures that.
        for name in (SCANS, START_READS, START_FETCHES, ENTRY):
            self.assertLessEqual(figures[name], LIMITS[name], name)
