"""Uploads wait beside the workspace and leave nothing behind, whatever happens to them."""

import os
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.staging import RESERVE, StagedFile, Staging
from matrix.errors import ClientGone, ConfigurationError, InsufficientStorage
from matrix.testing.scratch import scratch


class StagingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = scratch(self) / "incoming"
        self.staging = Staging(os.fsencode(self.path))
        self.addCleanup(self.staging.close)

    def left(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def content(self, staged: StagedFile) -> bytes:
        return (self.path / staged.name.decode()).read_bytes()

    def test_is_private(self) -> None:
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o700)

    def test_writes_chunks_in_order(self) -> None:
        staged = self.staging.create(None)
        staged.write([b"one"])
        staged.write([b"two", b"", b"three"])
        staged.finish()
        self.assertEqual(self.content(staged), b"onetwothree")
        self.assertEqual(staged.stat().st_size, 11)
        staged.close()

    def test_large_file_goes_to_the_disk_as_it_comes(self) -> None:
        staged = self.staging.create(None)
        self.addCleanup(staged.close)
        with patch("os.posix_fadvise", wraps=os.posix_fadvise) as advise:
            for _ in range(5):
                staged.write([bytes(4 * 1024 * 1024)])
        spans = [call.args[1:3] for call in advise.call_args_list]
        mega = 1024 * 1024
        self.assertEqual(spans, [(0, 8 * mega), (8 * mega, 8 * mega)])

    def test_abandoned_file_is_removed(self) -> None:
        staged = self.staging.create(None)
        staged.write([b"x"])
        staged.close()
        staged.close()
        self.assertEqual(self.left(), [])

    def test_placed_file_is_let_be(self) -> None:
        staged = self.staging.create(None)
        os.rename(self.path / staged.name.decode(), self.path / "placed")
        staged.placed()
        staged.close()
        self.assertEqual(self.left(), ["placed"])

    def test_write_that_comes_too_late_is_dropped(self) -> None:
        staged = self.staging.create(None)
        staged.close()
        staged.write([b"late"])
        self.assertRaises(ClientGone, staged.finish)

    def test_full_disk_is_said_in_so_many_words(self) -> None:
        staged = self.staging.create(None)
        self.addCleanup(staged.close)
        with patch("os.write", side_effect=OSError(28, "No space left on device")):
            error = self.assertRaises(InsufficientStorage, staged.write, [b"x"])
        self.assertIn("disk is full", str(error))
        with patch("os.fsync", side_effect=OSError(122, "Quota exceeded")):
            self.assertRaises(InsufficientStorage, staged.finish)

    def test_what_cannot_fit_is_refused_before_it_comes(self) -> None:
        disk = os.statvfs(self.path)
        free = disk.f_bavail * disk.f_frsize
        self.assertRaises(InsufficientStorage, self.staging.create, free)
        self.assertRaises(InsufficientStorage, self.staging.create, free - RESERVE + 10**9)
        self.assertEqual(self.left(), [])

    def test_sweeps_up_after_a_crash(self) -> None:
        (self.path / "file").write_text("half")
        (self.path / "trash/deep").mkdir(parents=True)
        (self.path / "trash/deep/file").write_text("x")
        precious = scratch(self)
        (precious / "kept").write_text("x")
        (self.path / "trash/link").symlink_to(precious.resolve())
        (self.path / "link").symlink_to(precious.resolve())
        self.assertEqual(self.staging.sweep(), 3)
        self.assertEqual(self.left(), [])
        self.assertTrue((precious / "kept").exists())

    def test_second_daemon_on_the_same_data_is_refused(self) -> None:
        error = self.assertRaises(ConfigurationError, Staging, os.fsencode(self.path))
        self.assertIn("another daemon", str(error))
