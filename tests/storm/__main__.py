"""C{script/storm}: ten minutes of everything at once, and a table of what is left of it."""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
import time

from tests.storm.storm import Storm

WARM_UP = 0.1
"""Of the whole time, before the first look."""


def main() -> int:
    """The exit status: 1 if there was a wrong answer, or anything leaked."""
    parser = argparse.ArgumentParser(prog="script/storm", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", default=f"{random.randrange(10**6)}", help="of all lots drawn")
    parser.add_argument("--clients", type=int, default=60, help="at a time")
    parser.add_argument("--only", default="", help="names of what to try, with commas between")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave nothing behind then, either
    # The loop complains of what becomes of TLS connections that our own clients broke off.
    logging.getLogger("asyncio").disabled = True
    began = time.monotonic()
    text = f"storm of {options.minutes:g} minutes, {options.clients} clients, seed {options.seed}"
    print(text, flush=True)
    seconds = 60 * options.minutes
    storm = Storm(options.seed, options.clients, options.only.split(",") if options.only else ())
    storm.run(WARM_UP * seconds, [(1 - WARM_UP) / 2 * seconds] * 2)
    print(storm.report())
    faults = storm.faults()
    for fault in faults:
        print(f"FAULT {fault}")
    print(f"{time.monotonic() - began:.0f} s, seed {options.seed}: {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
