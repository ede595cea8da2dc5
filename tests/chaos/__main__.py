"""C{script/chaos}: everything fails again and again, and a table of what came of it."""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
import time
from pathlib import Path

from tests.chaos.chaos import Chaos


def main() -> int:
    """The exit status: 1 if there was anything that must not be."""
    parser = argparse.ArgumentParser(prog="script/chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=900.0, help="of chaos")
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.02, help="of each fault, 0 to 1")
    parser.add_argument("--seed", default=f"{random.randrange(10**6)}", help="of all lots drawn")
    parser.add_argument("--keep", type=Path, help="a directory to leave logs and events in")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave nothing behind then, either
    # The loop complains of what becomes of TLS connections that were killed.
    logging.getLogger("asyncio").disabled = True
    began = time.monotonic()
    text = f"chaos of {options.seconds:g} s, {options.users} users, {options.rate:g} of each fault"
    sys.stdout.write(f"{text}, seed {options.seed}\n")
    chaos = Chaos(options.seed, options.users, rate=options.rate)
    chaos.run(options.seconds, options.keep)
    sys.stdout.write(f"{chaos.report()}\n")
    faults = chaos.tally.faults
    for fault in faults:
        sys.stdout.write(f"FAULT {fault}\n")
    took = time.monotonic() - began
    sys.stdout.write(f"{took:.0f} s, seed {options.seed}: {len(faults)} faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
