"""A real S3 server for tests: one per process, a bucket of its own per case."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from uuid import uuid4

from matrix.errors import ConfigurationError
from matrix.snapshots._bucket import Keeping, prepare_bucket
from matrix.snapshots._s3_calls import S3Calls
from matrix.snapshots._s3_wire import S3Place
from matrix.snapshots._seaweed import Seaweed, find_program

PREFIX = "matrix-seaweed-"

KEEPING = Keeping(prefix="users/", days=7)


@cache
def server() -> Seaweed:
    """The server of this process: started at the first call, ended at the process's exit."""
    sweep()
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    seaweed = seaweed_in(directory)
    seaweed.start()
    atexit.register(seaweed.stop)
    return seaweed


def seaweed_in(directory: Path) -> Seaweed:
    """The server of a directory that L{server} made."""
    return Seaweed(directory / "seaweed", find_program())


def sweep() -> None:
    """End the servers of test processes that were killed, and remove what they left."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not (directory / "seaweed" / "seaweedfs.pid").exists():
            continue
        seaweed = seaweed_in(directory)
        try:
            seaweed.clear_away()
        except ConfigurationError:
            continue  # its process lives
        shutil.rmtree(directory, ignore_errors=True)


def fresh_bucket() -> S3Place:
    """A new bucket, made ready. (SeaweedFS gives each some files of its own: one per case.)"""
    place = replace(server().where(), bucket=f"test-{uuid4().hex}")
    calls = S3Calls(place)
    refused = prepare_bucket(calls, KEEPING)
    calls.close()
    assert not refused, refused
    return place
