"""Starting the processes of a run each on its core, stopping them, and reading what they used."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROXY_CORE = 0
LOAD_CORE = 1
"""The load generators', the backend's and the bench's own."""

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02


class BenchError(Exception):
    """The bench cannot go on; the text says why and what to do."""


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started within runs on this core for good: affinity is inherited."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def launch(
    command: Sequence[str], core: int, log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program whose output goes to a file."""
    with on_core(core), log.open("ab") as output:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
            )
        except FileNotFoundError:
            raise BenchError(f"{command[0]} is not installed; run script/bench as root") from None


def end(process: subprocess.Popen[Any]) -> None:
    """Stop a program, the hard way if need be, and reap it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait(STOP_SECONDS)


def wait_until(happened: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """
    Wait for something.

    @raise BenchError: it did not happen in time.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise BenchError(f"not within {seconds:g} s: {what}")
        time.sleep(POLL_SECONDS)


def accepts(address: tuple[str, int] | str) -> bool:
    """Whether somebody listens there: a host and port, or a socket's path."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def free_port() -> int:
    """A port of 127.0.0.1 that is free now, for programs that cannot say which they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Usage:
    """What a process and its children use: processor time and memory."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def pids(self) -> list[int]:
        """The process and its descendants."""
        found = [self._pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(child) for child in _text(children).split()]
        return found

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        total = 0
        for pid in self.pids():
            fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12]) if fields else 0
        return total / TICKS

    def memory(self) -> int:
        """Bytes in memory now."""
        return self._sum("VmRSS")

    def peak(self) -> int:
        """The most bytes in memory since L{forget_peak}."""
        return self._sum("VmHWM")

    def forget_peak(self) -> None:
        """See C{/proc/PID/clear_refs} in proc(5)."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def _sum(self, field: str) -> int:
        total = 0
        for pid in self.pids():
            for line in _text(Path(f"/proc/{pid}/status")).splitlines():
                if line.startswith(f"{field}:"):
                    total += int(line.split()[1]) * 1024
        return total


def _text(path: Path) -> str:
    """A file of a process that may be gone."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Disturbance:
    """What others take meanwhile of the core that is the proxy's alone."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._began = time.monotonic()
        self._others = _taken() - usage.cpu_seconds()

    def share(self) -> float:
        """From 0 to 1, since it was made."""
        others = _taken() - self._usage.cpu_seconds() - self._others
        return max(0.0, others / (time.monotonic() - self._began))


def _taken() -> float:
    """Seconds of the proxy's core that programs used or the host withheld; see proc(5)."""
    line = Path("/proc/stat").read_text().splitlines()[1 + PROXY_CORE].split()
    user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(int, line[1:9])
    return (user + nice + system + steal) / TICKS


def busy_share(seconds: float = 0.3) -> float:
    """How much of all cores' time others use now, from 0 to 1; we sleep meanwhile."""
    idle_before, total_before = _stat()
    time.sleep(seconds)
    idle, total = _stat()
    return 1.0 - (idle - idle_before) / max(1, total - total_before)


def _stat() -> tuple[int, int]:
    numbers = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return numbers[3] + numbers[4], sum(numbers)
