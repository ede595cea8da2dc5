"""Opens many event streams, and notes how late each event is."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import uvloop

from bench.clients.common import Task, finish, percentile, ready

AT_ONCE = 32
"""Connections being opened."""
SETTLE_SECONDS = 1.5


class Stream(asyncio.Protocol):
    """One stream; all note in the same list."""

    lateness: list[float] = []
    opened = 0
    lost = 0

    def __init__(self, request: bytes) -> None:
        self._request = request

    def connection_made(self, transport: Any) -> None:
        """Called by the loop."""
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        now = time.monotonic()
        for part in data.split(b"data: ")[1:]:
            Stream.lateness.append(now - float(part.partition(b"\n")[0]))
        if data.startswith(b"HTTP/1.1 "):
            if data[9:12] != b"200":
                raise SystemExit(f"unexpected answer: {data[:300]!r}")
            Stream.opened += 1

    def connection_lost(self, reason: Exception | None) -> None:
        """Called by the loop."""
        Stream.lost += 1


async def main() -> None:
    """Measure for a while."""
    task = Task.from_arguments()
    loop, context = asyncio.get_running_loop(), task.context()
    request, turn = task.request("/events"), asyncio.Semaphore(AT_ONCE)

    async def connect() -> None:
        async with turn:
            await loop.create_connection(
                lambda: Stream(request),
                "127.0.0.1",
                task.port,
                ssl=context,
                server_hostname="localhost",
            )

    await asyncio.gather(*(connect() for _ in range(task.connections)))
    while Stream.opened < task.connections:
        await asyncio.sleep(0.05)
    gc.freeze()
    await asyncio.sleep(SETTLE_SECONDS)
    ready()
    Stream.lateness.clear()
    await asyncio.sleep(task.seconds)
    lateness = Stream.lateness[:]
    if Stream.lost:
        raise SystemExit(f"{Stream.lost} streams ended")
    finish(
        {
            "events": len(lateness),
            "p50_ms": percentile(lateness, 0.5) * 1000,
            "p99_ms": percentile(lateness, 0.99) * 1000,
        }
    )


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
