"""
Snapshots of a whole Matrix, of a size that counts: no other user must notice.

For C{script/snapshots}, not for every run of the tests: by default a home of a gigabyte.
"""

from __future__ import annotations

import os

from tests.trials.bystander import Bystander
from tests.trials.whole import IDLE, WholeCase

MEMORY_MIB = 64
"""By how much the router may grow meanwhile, however much is transferred."""
SLOWER = 2.0
"""By how much the slowest hundredth of another user's requests may take longer."""


class SizeTests(WholeCase):
    """Alice's home is large, bob sends requests all the time."""

    MEGABYTES = int(os.environ.get("SNAPSHOT_TRIAL_MB", "1000"))
    CHANGED = min(10, max(1, MEGABYTES // 10))
    MOVED = 1.5 * CHANGED
    QUIET = float(os.environ.get("SNAPSHOT_TRIAL_QUIET", "15"))
    SEED = int(os.environ.get("SNAPSHOT_TRIAL_SEED", "1"))

    def test_a_home(self) -> None:
        seen = self.whole_path()
        for what in ("first snapshot", "second snapshot", "restore"):
            self.assertLess(self.grown(seen, what), MEMORY_MIB, what)
            self.assertLess(seen.p99(what), SLOWER * seen.p99(IDLE), what)

    def grown(self, seen: Bystander, what: str) -> float:
        """MiB of the router above the least it has."""
        return seen.mebibytes(what) - seen.mebibytes(IDLE, min)
