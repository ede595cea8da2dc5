"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from bench.processes import PROXY_CORE, on_core

PACE_STEPS = 1_000_000
"""Some thirty milliseconds."""


def description() -> str:
    """Processor, cores, memory, kernel."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {platform.release()}"


def pace() -> float:
    """
    Milliseconds of processor time that a fixed loop takes on the proxy's core now. It is the
    same work each time: what makes it longer are guests of the host that share the real core.
    """
    with on_core(PROXY_CORE):
        began, total = time.process_time(), 0
        for number in range(PACE_STEPS):
            total += number
        return (time.process_time() - began) * 1000


def load() -> str:
    """The load averages."""
    return " ".join(f"{number:.2f}" for number in os.getloadavg())
