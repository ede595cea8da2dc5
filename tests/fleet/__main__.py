"""C{script/fleet}: wakes, warm requests and a crowd, with Fly's emulator in Fly's place."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable

from tests.fleet.figures import Verdict, crowd, wakes, warm
from tests.fleet.site import Site

MOST = 0.010, 0.040
"""Seconds that a wake may take beyond the machine's own time, at p50 and p99."""


def main() -> int:
    """The exit status: 1 if a figure is not what it should be."""
    parser = argparse.ArgumentParser(prog="script/fleet", description=__doc__)
    parser.add_argument("--users", type=int, default=500, help="who all come at once")
    parser.add_argument("--wakes", type=int, default=500, help="one after the other")
    parser.add_argument("--warm", type=int, default=10_000, help="requests to machines awake")
    parser.add_argument("--resume", type=float, default=0.3, help="seconds, of the emulator")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave nothing behind then, either
    began = time.monotonic()
    print(f"making {options.users} machines", flush=True)
    site = Site(options.users, options.resume)
    try:
        print(f"they sleep after {time.monotonic() - began:.0f} s", flush=True)
        faults = _shown("wake", lambda: wakes(site, min(options.wakes, options.users), MOST))
        faults += _shown("warm", lambda: warm(site, options.warm))
        site.all_asleep()
        faults += _shown("crowd", lambda: crowd(site))
    finally:
        site.close()
    print(f"{time.monotonic() - began:.0f} s: {faults} faults")
    return 1 if faults else 0


def _shown(name: str, measure: Callable[[], Verdict]) -> int:
    verdict = measure()
    print(f"{name}:")
    for line in verdict.lines:
        print(f"  {line}")
    for fault in verdict.faults:
        print(f"  FAULT {fault}")
    sys.stdout.flush()
    return len(verdict.faults)


if __name__ == "__main__":
    sys.exit(main())
