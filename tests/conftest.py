"""The reactor that tests run on is the one that C{twistd matrix} runs on."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

MEMORY = Path("/dev/shm")

ROOM = 4 << 30
"""Bytes that must be free there: some times what all tests at once have written."""

if "twisted.internet.reactor" not in sys.modules:
    import uvloop
    from twisted.internet import asyncioreactor

    asyncioreactor.install(uvloop.new_event_loop())


LONGEST = (
    "test_acceptance_keys.py",
    "test_workers.py",
    "test_acceptance_chaos.py",
    "test_acceptance_storm.py",
    "test_local_without_root.py",
    "test_directory_postgres.py",
    "test_acceptance_fleet.py",
    "test_acceptance_recovery.py",
    "test_acceptance_blocking.py",
    "test_acceptance_rights.py",
    "test_acceptance_sleep.py",
    "test_acceptance_keeping.py",
    "test_fly_moving.py",
    "test_daemon_snapshots.py",
)
"""Files that take half a minute and more, the longest first: begun last, each would let all
processors but one wait for it in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then all that is tested over real sockets, then the rest."""
    order = {name: place for place, name in enumerate(LONGEST)}

    def place(item: pytest.Item) -> int:
        is_short = len(LONGEST) + ("integration" not in item.path.parts)
        return order.get(item.path.name, is_short)

    items.sort(key=place)


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


def _free_memory() -> int:
    """Bytes (proc_meminfo(5))."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def _write_to_memory() -> None:
    """
    Have tests, and what they start, write to memory rather than to a disk, if there is room.

    They make and remove some hundred thousand small files, most of them PostgreSQL's. On ext4
    without a journal that alone took a fifth of the time: it gives no inode out again soon after
    a file was removed, and looks at all of those for each new file.
    """
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK | os.X_OK):
        return
    place = os.statvfs(MEMORY)
    is_roomy = min(place.f_bavail * place.f_frsize, _free_memory()) >= ROOM
    if is_roomy and not place.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None


_write_to_memory()
