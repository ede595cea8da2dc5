"""C{script/siege}: a hundred thousand forged tokens, and what they did to everybody else."""

from __future__ import annotations

import argparse
import signal
import sys

from tests.siege.siege import Plan, Siege


def main() -> int:
    """The exit status: 1 if anything was that must not be."""
    parser = argparse.ArgumentParser(prog="script/siege", description=__doc__)
    parser.add_argument("--tokens", type=int, default=Plan.tokens, help="how many, of all kinds")
    parser.add_argument("--addresses", type=int, default=Plan.addresses, help="of the forgers")
    parser.add_argument("--connections", type=int, default=Plan.connections, help="of the forgers")
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="at most, each time")
    parser.add_argument("--workers", type=int, default=1, help="of the router")
    parser.add_argument(
        "--failures",
        type=int,
        action="append",
        help="MATRIX_AUTH_FAILURES; may be repeated. Default: 0, then 300",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave nothing behind then, either
    plan = Plan(options.tokens, options.connections, options.addresses, seconds=options.seconds)
    faults = 0
    for failures in options.failures or (0, 300):
        print(f"\nMATRIX_AUTH_FAILURES={failures}, {options.workers} workers", flush=True)
        report = Siege(plan, auth_failures=failures, workers=options.workers).run()
        print("\n".join(report.lines()))
        for fault in report.faults():
            print(f"FAULT {fault}")
            faults += 1
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
