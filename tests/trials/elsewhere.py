"""
A processor apart for what in earnest has one of its own: a machine at Fly, and an S3 server. What
they and the router do to each other on one processor is no matter of the router's.
"""

from __future__ import annotations

import os
import shlex

from matrix.machines._command import DAEMON
from matrix.processes import read_pid_file
from matrix.testing.issuer import LocalUser
from matrix.testing.running import RunningMatrix

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
    apart = processor()
    if apart is None:
        return shlex.join(DAEMON)
    script = _PINNED.format(user=LocalUser.named(name).id, processor=apart)
    return shlex.join(["sh", "-c", script, "sh", "{user}", *DAEMON])


def move_store(matrix: RunningMatrix) -> None:
    """Let its S3 server run apart."""
    process, apart = read_pid_file(matrix.state / "s3" / "seaweedfs.pid"), processor()
    assert process is not None, "there is no S3 server"
    if apart is not None:
        for thread in os.listdir(f"/proc/{process.pid}/task"):
            os.sched_setaffinity(int(thread), {apart})
