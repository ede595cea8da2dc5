"""The directory's public names are these, and each says what it is for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from matrix import directory


class ExportTests(SynchronousTestCase):
    """C{matrix.directory.__all__}."""

    def test_names(self) -> None:
        self.assertEqual(
            directory.__all__,
            [
                "Chore",
                "DirectoryUnavailable",
                "EmbeddedPostgres",
                "Erasing",
                "IDirectory",
                "ISessions",
                "ISignIns",
                "ITickets",
                "IUpkeep",
                "MemoryDirectory",
                "PostgresDirectory",
                "StaleRow",
                "UnknownUser",
                "Upkeep",
                "migrate",
                "open_directory",
            ],
        )
        for name in directory.__all__:
            self.assertTrue(getattr(directory, name).__doc__, name)
