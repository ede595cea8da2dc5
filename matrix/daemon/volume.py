"""What lies where on a machine's volume, and what of it is no user's data."""

from __future__ import annotations

import os
from pathlib import Path

from matrix.errors import ConfigurationError

PRIVATE = ".matrix"
"""The daemon's own: what it must know after a restart, restic's cache, restores on their way."""

COPIES = ".matrix-databases"
"""Copies of databases in use while a snapshot is taken. In a snapshot they stand for the files
of the same paths, and are put in their places when it is restored."""

LEFT_OUT = (PRIVATE, ".incoming", ".cache", "lost+found")
"""Top-level names that no snapshot holds: ours, unfinished uploads, what can be made again, and
what a file system keeps for itself."""


class Volume:
    """The paths on one volume."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.private = data / PRIVATE
        self.copies = data / COPIES
        self.restic_cache = self.private / "restic"
        self.last = self.private / "last-snapshot.json"
        """The last good snapshot, and what the data were then."""
        self.in_use = self.private / "repository-in-use"
        """There while restic runs: left behind, it tells of a lock that may be, too."""
        self.whole = self.private / "whole.json"
        """There once the data are whole: nothing is to be restored any more."""
        self.moving = self.private / "moving.json"
        """There while a finished restore moves into place."""

    @classmethod
    def claimed(cls, data: Path) -> Volume:
        """
        The volume, with our own directory on it.

        @raise ConfigurationError: that cannot be made.
        """
        volume = cls(data)
        try:
            volume.make()
        except OSError as error:
            raise ConfigurationError(f"--data {data}: {error.strerror}: {error.filename}") from None
        return volume

    def make(self) -> None:
        """
        Make our own directory.

        @raise OSError: that is not possible.
        """
        self.private.mkdir(mode=0o700, parents=True, exist_ok=True)

    def sync(self) -> None:
        """Have what was renamed here and in our own directory on the disk. Blocks."""
        for folder in (self.private, self.data):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
