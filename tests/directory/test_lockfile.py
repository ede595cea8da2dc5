"""What postmaster.pid says, at every stage of its writing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory._lockfile import LockFile, is_postmaster
from matrix.processes import Process, find

WHOLE = "4711\n/srv/data\n1795443831\n41857\n\n127.0.0.1\n  1234  5\nready   \n"


class LockFileTests(SynchronousTestCase):
    """L{LockFile}."""

    def test_whole(self) -> None:
        self.assertEqual(LockFile.parse(WHOLE), LockFile(4711, 41857, True))
        for status in ("starting", "stopping", "standby"):
            lock = LockFile.parse(WHOLE.replace("ready   ", status))
            self.assertEqual(lock, LockFile(4711, 41857, False))

    def test_as_it_grows(self) -> None:
        for length in range(len(WHOLE)):
            lock = LockFile.parse(WHOLE[:length])
            if lock is not None:
                self.assertIn(str(lock.pid), WHOLE[:length])
                self.assertEqual(lock.ready, "ready" in WHOLE[:length])

    @given(
        st.text(alphabet=st.characters(codec="utf-8")) | st.text("0123456789\n- ٣²", max_size=40)
    )
    def test_rubbish_is_none_or_a_number(self, text: str) -> None:
        lock = LockFile.parse(text)
        if lock is not None:
            self.assertTrue(text.strip().startswith(tuple("0123456789")))

    def test_read(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        data = Path(directory.name)
        self.assertIsNone(LockFile.read(data))
        (data / "postmaster.pid").write_bytes(b"\xff\xfe")
        self.assertIsNone(LockFile.read(data))
        (data / "postmaster.pid").write_text(WHOLE)
        self.assertEqual(LockFile.read(data), LockFile(4711, 41857, True))


class IsPostmasterTests(SynchronousTestCase):
    """L{is_postmaster}."""

    def test_we_are_none(self) -> None:
        us = find(os.getpid())
        assert us is not None
        self.assertFalse(is_postmaster(us, Path("/srv/data")))

    def test_nobody_is_none(self) -> None:
        self.assertFalse(is_postmaster(Process(2**22 + 1, 0), Path("/srv/data")))
