"""C{script/scale}: very many users, and a table of what they cost a router."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import suppress
from typing import Any

import uvloop
from twisted.internet import asyncioreactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

asyncioreactor.install(uvloop.new_event_loop())  # type: ignore[no-untyped-call]

from tests.scale.scale import LIMITS, Scale  # noqa: E402 -- it may import a reactor


def main() -> int:
    """The exit status: 1 if something costs more than it may."""
    parser = argparse.ArgumentParser(prog="script/scale", description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000, help="in PostgreSQL")
    parser.add_argument("--known", type=int, default=100_000, help="to the router")
    parser.add_argument("--look-ups", type=int, default=5_000)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave nothing behind then, either
    scale = Scale(options.users, options.known, options.look_ups)
    figures: dict[str, float] = {"users": options.users, "known to the router": options.known}
    try:
        scale.fill()
        figures |= scale.start()
        with suppress(SystemExit):
            react(lambda reactor: ensureDeferred(_ask(reactor, scale, figures)))
    finally:
        scale.close()
    too_much = [name for name, most in LIMITS.items() if figures[name] > most]
    for name, value in figures.items():
        limit = f"   (at most {LIMITS[name]:g})" if name in LIMITS else ""
        print(f"{name:60} {value:12,.2f}{limit}")
    for name in too_much:
        print(f"FAULT {name}")
    return 1 if too_much else 0


async def _ask(reactor: Any, scale: Scale, figures: dict[str, float]) -> None:
    figures |= await scale.unknown(reactor)
    figures |= await scale.remember(reactor)


if __name__ == "__main__":
    sys.exit(main())
