"""
A processor apart for what in earnest has one of its own: a machine at Fly, and an S3 server. What
they and the router do to each other on one processor is no matter of the router's.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from matrix.processes import read_pid_file
from matrix.testing.issuer import LocalUser
from matrix.testing.running import LAUNCH, RunningMatrix

_DAEMON = [sys.executable, "-P", "-c", LAUNCH, "--nodaemon", "--pidfile=", "matrix-daemon"]
_PLACES = ["--listen", "unix:{socket}", "--data", "{data}"]
_PINNED = 'user=$1; shift; [ "$user" != {user} ] || set -- taskset -c {processor} "$@"; exec "$@"'


def processor() -> int | None:
    """The one that is theirs; C{None} where there is but one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1] if len(usable) > 1 else None


def command(name: str) -> str:
    """
    What machines run (the setting C{local_command}): our daemon, that of one user apart.

    @param name: the user's.
    """
    words: Sequence[str] = [*_DAEMON, *_PLACES]
    apart = processor()
    if apart is not None:
        script = _PINNED.format(user=LocalUser.named(name).id, processor=apart)
        words = ["sh", "-c", script, "sh", "{user}", *words]
    return shlex.join(words)


def move_store(matrix: RunningMatrix) -> None:
    """Let its S3 server run apart."""
    process, apart = read_pid_file(matrix.state / "s3" / "seaweedfs.pid"), processor()
    assert process is not None, "there is no S3 server"
    if apart is not None:
        for thread in os.listdir(f"/proc/{process.pid}/task"):
            os.sched_setaffinity(int(thread), {apart})
