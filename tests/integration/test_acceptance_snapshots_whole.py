"""A home with a database in use is backed up, lost and restored, byte for byte."""

from __future__ import annotations

from tests.trials.whole import WholeCase


class WholePathTests(WholeCase):
    """What script/snapshots does with a gigabyte."""

    MEGABYTES = 12
    CHANGED = 3
    MOVED = 8  # Pieces of the database are of a megabyte, as restic cuts it.
    QUIET = 0.1
    PAUSE = 0.05

    def test_a_home(self) -> None:
        self.whole_path()
