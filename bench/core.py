"""
Counts the machine instructions of one proxied request, whatever else the machine is doing.

Valgrind runs the same program twice, with and without requests; the difference is theirs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from bench.processes import BenchError
from bench.site import ROOT

BASELINE = Path(__file__).with_name("core-baseline.txt")
REQUESTS = 2000
TOLERANCE = 0.05
"""By how much more a request may cost before it is called a regression."""

COUNTED = re.compile(r"Collected : (\d+)")
SAME = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
"""What makes two runs alike, to some forty instructions per request: the same order of sets, and
no first run that compiles modules for the second."""

PATIENCE_SECONDS = 900.0
"""Valgrind makes Python some fifty times slower."""


def count() -> float:
    """
    Instructions of one request.

    @raise BenchError: valgrind is missing, or the program failed.
    """
    return (_instructions(REQUESTS) - _instructions(0)) / REQUESTS


def compare(save: bool) -> int:
    """
    Count, and hold the count against the one on record.

    @param save: put it on record instead.
    @return: an exit status; 1 if a request costs too much.
    """
    now, versions = count(), _versions()
    sys.stdout.write(f"{now:,.0f} instructions per request ({versions})\n")
    if save:
        BASELINE.write_text(f"{now:.0f} instructions per request\n{versions}\n")
        sys.stdout.write(f"written to {BASELINE}\n")
        return 0
    before, then = _baseline()
    if then != versions:
        sys.stdout.write(f"note: the baseline was counted with {then}\n")
    change = now / before - 1
    sys.stdout.write(f"baseline {before:,.0f}: {change:+.1%} (at most {TOLERANCE:+.0%})\n")
    return 1 if change > TOLERANCE else 0


def _baseline() -> tuple[float, str]:
    try:
        first, second = BASELINE.read_text().splitlines()[:2]
        return float(first.split()[0]), second
    except (FileNotFoundError, ValueError, IndexError):
        raise BenchError(f"{BASELINE} is missing or damaged: --core --save writes it") from None


def _instructions(requests: int) -> int:
    if shutil.which("valgrind") is None:
        raise BenchError("valgrind is not installed; run script/bench --core as root")
    with tempfile.TemporaryDirectory(prefix="matrix-bench-") as directory:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out"]
        # setarch: another memory layout would change the count of a run a little.
        done = subprocess.run(
            ["setarch", "-R", *command, sys.executable, "-m", "bench.core_loop", str(requests)],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **SAME},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    found = COUNTED.search(done.stderr)
    if done.returncode != 0 or found is None:
        raise BenchError(f"the core could not be counted: {done.stderr[-1500:]}")
    return int(found[1])


def _versions() -> str:
    python = sys.version.split()[0]
    return f"Python {python}, Twisted {version('twisted')}, httptools {version('httptools')}"
