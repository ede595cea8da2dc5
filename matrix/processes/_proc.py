"""What /proc says of processes, and signals that never reach a recycled process id."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DEAD = frozenset("ZXx")
"""State letters of a process that has ended, reaped or not (proc(5), field 3)."""


@dataclass(frozen=True, slots=True)
class Process:
    """
    One process, for good: a process id comes back after a while, the two together do not
    (within one boot of the host; see L{host_boot}).
    """

    pid: int
    started: int
    """Clock ticks from the host's boot to the process's start (proc(5), field 22)."""


@dataclass(frozen=True, slots=True)
class _Stat:
    """The fields of C{/proc/PID/stat} that are of use here."""

    process: Process
    state: str
    group: int
    session: int

    @property
    def alive(self) -> bool:
        return self.state not in DEAD


def _parse_stat(text: bytes) -> _Stat:
    """Read a C{stat} line; the command's name may itself hold blanks and parentheses."""
    pid, _, rest = text.partition(b" (")
    fields = rest[rest.rindex(b")") + 2 :].split()
    return _Stat(
        process=Process(int(pid), int(fields[19])),
        state=fields[0].decode("ascii"),
        group=int(fields[2]),
        session=int(fields[3]),
    )


def _stat(pid: int) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return _parse_stat(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None


def _pids() -> Iterator[int]:
    """The id of every process there is."""
    return map(int, filter(str.isdigit, os.listdir("/proc")))


def host_boot() -> str:
    """The kernel's id of this boot of the host: start ticks mean nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def find(pid: int) -> Process | None:
    """The process that has this id now, dead or alive; C{None} if there is none."""
    stat = _stat(pid)
    return None if stat is None else stat.process


def state(process: Process) -> str | None:
    """The state letter of proc(5) (C{R}, C{S}, C{T} for stopped, C{Z}, …), or C{None} if gone."""
    stat = _stat(process.pid)
    return stat.state if stat is not None and stat.process == process else None


def is_alive(process: Process) -> bool:
    """Whether it still runs or is stopped; a zombie is dead."""
    return (state(process) or "Z") not in DEAD


def _living(pids: Iterable[int], belongs: Callable[[_Stat], bool]) -> list[Process]:
    stats = filter(None, map(_stat, pids))
    return [stat.process for stat in stats if stat.alive and belongs(stat)]


def group_members(pgid: int) -> list[Process]:
    """The living processes of a process group. Reads all of /proc: call it in a thread."""
    return _living(_pids(), lambda stat: stat.group == pgid)


def session_members(sid: int) -> list[Process]:
    """The living processes of a session, whatever their group. Call it in a thread."""
    return _living(_pids(), lambda stat: stat.session == sid)


def user_members(uid: int) -> list[Process]:
    """The living processes whose real user is C{uid}. Call it in a thread."""
    return _living((pid for pid in _pids() if _runs_as(pid, uid)), lambda stat: True)


def marked_members(mark: str) -> list[Process]:
    """
    The living processes that were started with C{mark}, a C{NAME=value}, in their
    environment; only those whose environment we may read. Call it in a thread.
    """
    needle = b"\0" + mark.encode("utf-8", "surrogateescape") + b"\0"
    return _living(_pids(), lambda stat: needle in b"\0" + _environment(stat.process.pid))


def descendants(process: Process) -> list[Process]:
    """
    The living children of a process, theirs, and so on, whatever their groups and sessions; not
    those whose parent has died. Reads a few files for each.
    """
    found: list[Process] = []
    for pid in _children(process.pid):
        stat = _stat(pid)
        if stat is not None and stat.alive:
            found += [stat.process, *descendants(stat.process)]
    return found


def _children(pid: int) -> list[int]:
    """Of all its threads (proc_tid_children(5))."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(FileNotFoundError, ProcessLookupError):
                text = Path(f"/proc/{pid}/task/{thread}/children").read_text("ascii")
                found += map(int, text.split())
    return found


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _runs_as(pid: int, uid: int) -> bool:
    """
    Whether a process's real user is C{uid}. Its directory belongs to that user, or to root
    if it made itself undumpable; only then is the dearer C{status} read.
    """
    try:
        if os.stat(f"/proc/{pid}").st_uid not in (uid, 0):
            return False
        with open(f"/proc/{pid}/status", "rb") as file:
            return any(line.startswith(b"Uid:\t%d\t" % uid) for line in file)
    except (FileNotFoundError, ProcessLookupError):
        return False


def signal_process(process: Process, number: int) -> bool:
    """
    Send a signal to exactly this process.

    @return: whether it was there to get it. A process that has taken over its id is
        never touched: the descriptor is opened first and compared after.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def signal_group(process: Process, number: int) -> int:
    """
    Send a signal to every living member of the group that C{process} leads or led.

    A process that forks meanwhile may have a child that gets nothing: ask again until
    L{group_members} says what you want. Reads all of /proc: call it in a thread.

    @return: how many got it. Nobody does if the leader's id belongs to another process
        now, for then the whole group is gone (the kernel gives no id away that still
        names a group).
    """
    present = find(process.pid)
    if present is not None and present != process:
        return 0
    return sum(
        signal_process(member, number)
        for member in group_members(process.pid)
        if member.started >= process.started
    )


def put_behind(process: Process, niceness: int) -> None:
    """
    Let others go before the session that C{process} leads, where there is not processor enough.
    Does nothing if the process is gone, and what the system does not allow is left out.

    @param niceness: 1 to 19.
    """
    # Where the kernel shares the processor out by sessions (sched(7)), the first is what counts.
    with suppress(OSError):
        Path(f"/proc/{process.pid}/autogroup").write_text(f"{niceness}")
    # Of the group: of the process alone it would be that of its first thread.
    with suppress(OSError):
        os.setpriority(os.PRIO_PGRP, process.pid, niceness)
