"""What this process holds now: for operators who suspect that it keeps what it should let go."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
from collections import Counter
from typing import Any

from matrix.net import Wheel

_NUMBER = re.compile(r"\[\d+\]$")


def census(reactor: Any, loop: asyncio.AbstractEventLoop, wheel: Wheel) -> dict[str, object]:
    """
    Counts of everything that a leak would show in, as JSON has it.

    Garbage is collected first, so that what is counted is held by somebody. It takes some
    tenths of a second in which nothing else happens: it is for an operator's question, not
    for a scraper.
    """
    gc.collect()
    classes = Counter(map(type, gc.get_objects()))
    instances: Counter[str] = Counter()
    for found, count in classes.items():
        instances[f"{found.__module__}.{found.__qualname__}"] += count
    return {
        "memory_bytes": _resident(),
        "files": dict(sorted(_files().items())),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks(loop)),
        "delayed_calls": len(reactor.getDelayedCalls()),
        "deadlines": len(wheel),
        "instances": dict(instances.most_common()),
    }


def _resident() -> int:
    """Bytes of this process that are in memory (proc_pid_statm(5))."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _files() -> Counter[str]:
    """
    Open files by kind. That of a socket or a pipe is its first word (C{socket:[4711]}),
    files go by their path.
    """
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one that the list itself was read through
            continue
        found[_NUMBER.sub("", target).rstrip(":")] += 1
    return found
