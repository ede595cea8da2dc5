"""The S3 server of an embedded Matrix that hangs for a while."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from matrix.processes import read_pid_file, signal_process
from matrix.testing.running import RunningMatrix


@contextmanager
def hanging(matrix: RunningMatrix) -> Iterator[None]:
    """While it takes connections and answers nothing: worse than one that refuses them."""
    process = read_pid_file(matrix.state / "s3" / "seaweedfs.pid")
    assert process is not None, "there is no S3 server"
    signal_process(process, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_process(process, signal.SIGCONT)
