"""A directory for one test, gone when the test is over."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


def scratch(test: SynchronousTestCase) -> Path:
    """A fresh, empty directory. Its path is short enough for a unix socket within."""
    folder = tempfile.TemporaryDirectory(prefix="matrix-")
    test.addCleanup(folder.cleanup)
    return Path(folder.name)
