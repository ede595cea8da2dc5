"""Each of the directory's public names says what it is for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from matrix import directory


class ExportTests(SynchronousTestCase):
    """C{matrix.directory.__all__}."""

    def test_each_says_what_it_is_for(self) -> None:
        for name in directory.__all__:
            self.assertTrue(getattr(directory, name).__doc__, name)
