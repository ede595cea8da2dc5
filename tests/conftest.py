"""The reactor that tests run on is the one that C{twistd matrix} runs on."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

if "twisted.internet.reactor" not in sys.modules:
    import uvloop
    from twisted.internet import asyncioreactor

    asyncioreactor.install(uvloop.new_event_loop())


@pytest.fixture(autouse=True, scope="session")
def _directory_that_goes_away() -> Iterator[None]:
    """Trial's C{mktemp} makes its directories below the current one, and leaves them there."""
    before = Path.cwd()
    with TemporaryDirectory(prefix="matrix-tests-") as directory:
        # As root some tests run programs as another user, who must get through here.
        Path(directory).chmod(0o711)
        os.chdir(directory)
        yield
        os.chdir(before)
