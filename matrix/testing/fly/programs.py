"""What a machine runs: a process group of its own, listening on the machine's address."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import Interface, implementer

from matrix.processes import (
    ExitWatch,
    Process,
    SpawnError,
    descendants,
    find,
    group_members,
    is_alive,
    python_reach,
    read_pid_file,
    signal_process,
    spawn,
    state,
    watch_exit,
)
from matrix.testing.fly.command import Command

THREADS = 8
"""That may start programs at once: each takes some 30 ms, most of it waiting."""

KILL_SECONDS = 10.0
"""What SIGKILL does not end within this time hangs in the kernel."""

LOOK_SECONDS = 0.02
"""Between two looks at a group that is to end."""


class NotStarted(Exception):
    """The program cannot be run; says why."""


@dataclass(frozen=True)
class Boot:
    """What a program is started with."""

    machine_id: str
    place: Path
    """The machine's own directory: for its pid file and log."""
    data: Path
    """What the machine is to see as C{/data}."""
    address: str
    port: int
    environment: Mapping[str, str]


class IPrograms(Interface):
    """Runs the machines' programs. A program stands still, with its children, or runs."""

    def adopt(machine_id: str, place: Path) -> bool:
        """Take over what an earlier emulator started. Whether it is alive."""

    async def boot(boot: Boot) -> None:
        """
        End what runs of the machine, and start it anew.

        @raise NotStarted: it cannot be.
        """

    def running(machine_id: str) -> bool:
        """Whether it is alive, be it that it stands still."""

    def stands(machine_id: str) -> bool:
        """Whether it stands still."""

    def send(machine_id: str, number: int) -> None:
        """Send a signal to all of its processes; SIGSTOP and SIGCONT freeze and thaw."""

    async def end(machine_id: str, number: int, grace: float) -> None:
        """
        Ask it to end by a signal, and kill what is left.

        @param grace: seconds between the two.
        """

    def processes() -> Mapping[str, int]:
        """The leading process of each machine that has one."""

    def on_death(died: Callable[[str], None]) -> None:
        """Have C{died} called with a machine's id when its program ended and nobody asked."""


@implementer(IPrograms)
class LocalPrograms:
    """
    Processes of this host. They outlive us, and are found again by their pid files. Children that
    leave their machine's process group are frozen and thawed with it, but not ended.
    """

    def __init__(self, reactor: Any, command: Command) -> None:
        self._reactor = reactor
        self._command = command
        self._running: dict[str, tuple[Process, ExitWatch]] = {}
        self._died: Callable[[str], None] = lambda machine_id: None
        self._booting: set[Deferred[Any]] = set()
        self._pool = ThreadPool(0, THREADS, "fly-programs")
        self._pool.start()
        self._guard = reactor.addSystemEventTrigger("after", "shutdown", self._pool.stop)

    def adopt(self, machine_id: str, place: Path) -> bool:
        """By the pid file."""
        process = read_pid_file(place / "pid")
        if process is None or not is_alive(process):
            return False
        self._attend(machine_id, process)
        return True

    async def boot(self, boot: Boot) -> None:
        """In a thread, since it blocks."""
        await self.end(boot.machine_id, signal.SIGKILL, 0.0)
        spawning = self._in_thread(_spawn, boot, self._command)
        self._booting.add(spawning)
        try:
            process = await spawning
        except (SpawnError, OSError) as error:
            raise NotStarted(str(error)) from None
        finally:
            self._booting.discard(spawning)
        self._attend(boot.machine_id, process)

    def running(self, machine_id: str) -> bool:
        """As the kernel says."""
        process, _ = self._running.get(machine_id, (None, None))
        return process is not None and is_alive(process)

    def stands(self, machine_id: str) -> bool:
        """As the kernel says of its first process."""
        process, _ = self._running.get(machine_id, (None, None))
        return process is not None and state(process) == "T"

    def send(self, machine_id: str, number: int) -> None:
        """To the group, at once."""
        process, _ = self._running.get(machine_id, (None, None))
        if process is not None:
            _signal(process, number)

    async def end(self, machine_id: str, number: int, grace: float) -> None:
        """
        Looks every few milliseconds. May be called while an earlier call waits out its grace:
        with SIGKILL, that ends both.
        """
        process, watch = known = self._running.get(machine_id, (None, None))
        if process is None or watch is None:
            return
        watch.cancel()
        _signal(process, number)
        _signal(process, signal.SIGCONT)
        if number != signal.SIGKILL:
            await self._until_gone(process, grace)
        _signal(process, signal.SIGKILL)
        if not await self._until_gone(process, KILL_SECONDS):
            raise NotStarted(f"process {process.pid} survives SIGKILL: the kernel holds it")
        if self._running.get(machine_id) == known:
            del self._running[machine_id]

    def on_death(self, died: Callable[[str], None]) -> None:
        """Called in the reactor, at once."""
        self._died = died

    def processes(self) -> dict[str, int]:
        """The leading process of each machine that has one."""
        return {machine_id: process.pid for machine_id, (process, _) in self._running.items()}

    async def close(self, end: bool) -> None:
        """
        @param end: whether to end the programs, rather than leave them.
        """
        while self._booting:
            await deferLater(self._reactor, LOOK_SECONDS)
        if end:
            endings = [self.end(each, signal.SIGKILL, 0.0) for each in list(self._running)]
            await gatherResults([Deferred.fromCoroutine(ending) for ending in endings])
        for _, watch in self._running.values():
            watch.cancel()
        self._running.clear()
        self._reactor.removeSystemEventTrigger(self._guard)
        self._pool.stop()

    def _attend(self, machine_id: str, process: Process) -> None:
        watch = watch_exit(process, self._reactor, lambda: self._ended(machine_id, process))
        if watch is None:
            self._reactor.callLater(0, self._died, machine_id)
        else:
            self._running[machine_id] = process, watch

    def _ended(self, machine_id: str, process: Process) -> None:
        self._running.pop(machine_id, None)
        _signal(process, signal.SIGKILL)  # children that it left behind
        self._died(machine_id)

    async def _until_gone(self, process: Process, longest: float) -> bool:
        deadline = self._reactor.seconds() + longest
        while is_alive(process) or await self._in_thread(_has_group, process):
            if self._reactor.seconds() >= deadline:
                return False
            await deferLater(self._reactor, LOOK_SECONDS)
        return True

    def _in_thread(self, *call: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._pool, *call)


def _is_theirs(process: Process) -> bool:
    """Whether the process's id, as that of its group, can mean no other group by now."""
    return find(process.pid) in (None, process)


def _signal(process: Process, number: int) -> None:
    if not _is_theirs(process):
        return
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
    if number in (signal.SIGSTOP, signal.SIGCONT):
        # After the group: who stands still begins no more children.
        for each in descendants(process):
            signal_process(each, number)


def _has_group(process: Process) -> bool:
    """
    Whether anybody is left of it. Zombies, whom nobody may be there to reap, are nobody. May
    read all of /proc: call it in a thread.
    """
    if not _is_theirs(process):
        return False
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return bool(group_members(process.pid))


def _spawn(boot: Boot, command: Command) -> Process:
    boot.place.mkdir(parents=True, exist_ok=True)
    boot.data.mkdir(parents=True, exist_ok=True)
    pid_file = boot.place / "pid"
    lock = os.open(boot.place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The launcher of an emulator that was killed meanwhile may not be done yet.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _clear(pid_file)
        return spawn(
            command.fill(boot.machine_id, boot.address, boot.port, boot.data),
            env=boot.environment,
            cwd=boot.data,
            identity=None,
            log=boot.place / "log",
            reach=python_reach(),
            pid_file=pid_file,
            hold=[lock],
        )
    finally:
        os.close(lock)


def _clear(pid_file: Path) -> None:
    """End what was started and never made known."""
    process = read_pid_file(pid_file)
    if process is not None:
        _signal(process, signal.SIGKILL)
    pid_file.unlink(missing_ok=True)
