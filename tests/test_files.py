"""Files that are written whole: what is there afterwards, and what if it fails half-way."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from matrix.files import write_whole


class WholeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)
        self.path = self.directory / "kept"

    def mode(self) -> int:
        return stat.S_IMODE(self.path.stat().st_mode)

    def test_replaces_content_and_mode(self) -> None:
        write_whole(self.path, b"first")
        self.assertEqual((self.path.read_bytes(), self.mode()), (b"first", 0o600))
        self.path.chmod(0o666)
        write_whole(self.path, b"second")
        self.assertEqual((self.path.read_bytes(), self.mode()), (b"second", 0o600))
        write_whole(self.path, b"third", mode=0o644)
        self.assertEqual((self.path.read_bytes(), self.mode()), (b"third", 0o644))
        self.assertEqual([each.name for each in self.directory.iterdir()], ["kept"])

    def test_on_a_full_disk_the_old_one_stays(self) -> None:
        write_whole(self.path, b"old")

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(os, "fsync", full)
        self.assertRaises(OSError, write_whole, self.path, b"new")
        self.assertEqual(self.path.read_bytes(), b"old")

    def test_what_a_crash_left_is_in_nobodys_way(self) -> None:
        left = self.directory / "kept.new"
        left.write_bytes(b"half of")
        left.chmod(0o666)
        write_whole(self.path, b"whole")
        self.assertEqual((self.path.read_bytes(), self.mode()), (b"whole", 0o600))
        self.assertFalse(left.exists())
