"""Half a minute of what script/storm does in ten: no wrong answer, and nothing leaks."""

from __future__ import annotations

import sys
from unittest import TestCase

from tests.storm.storm import Storm

SECONDS = 7.0
"""Of storm between the first look and the last."""

CLIENTS = 24


class StormTests(TestCase):
    def test_a_storm_leaves_nothing_behind(self) -> None:
        storm = Storm("acceptance", CLIENTS)
        storm.run(warm_up=2.0, parts=[SECONDS])
        sys.stdout.write(f"\n{storm.report()}\n")
        self.assertEqual(storm.faults(), [])
        for tried in ("get", "post", "echo", "websocket", "events", "files", "leave_in_answer"):
            self.assertGreater(storm.tally.tried(tried), 0, tried)
        for done in ("suspended", "killed", "stopped"):
            self.assertGreater(storm.troubles.count[done], 0, done)
