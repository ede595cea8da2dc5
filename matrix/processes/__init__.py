"""Programs that run on their own: started detached from us, known for good, signalled safely."""

from matrix.processes._proc import (
    Process,
    descendants,
    find,
    group_members,
    host_boot,
    is_alive,
    marked_members,
    put_behind,
    session_members,
    signal_group,
    signal_process,
    state,
    user_members,
)
from matrix.processes._reach import python_reach
from matrix.processes._spawn import Identity, SpawnError, read_pid_file, spawn
from matrix.processes._supervised import Server, Supervised
from matrix.processes._watch import ExitWatch, watch_exit

__all__ = [
    "ExitWatch",
    "Identity",
    "Process",
    "Server",
    "SpawnError",
    "Supervised",
    "descendants",
    "find",
    "group_members",
    "host_boot",
    "is_alive",
    "marked_members",
    "put_behind",
    "python_reach",
    "read_pid_file",
    "session_members",
    "signal_group",
    "signal_process",
    "spawn",
    "state",
    "user_members",
    "watch_exit",
]
