"""A valid user's view of a siege: how long answers take, and whether each is a good one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from matrix.testing.wire import Door

PATH = "/counts"
"""Of L{matrix.testing.stream_machine}: the answer is short."""


@dataclass
class Visit:
    """What a guest saw."""

    seconds: list[float] = field(default_factory=list)
    """Of each answer."""
    statuses: Counter[int] = field(default_factory=Counter)

    def percentile(self, share: float, since: float = 0.0) -> float:
        """
        Milliseconds within which this share of the answers came.

        @param since: the share of the visit that is not looked at.
        """
        ordered = sorted(self.seconds[int(since * len(self.seconds)) :])
        return 1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]


@dataclass(frozen=True)
class Guest:
    """Somebody who asks at regular times, on one connection."""

    door: Door
    address: str
    """Where the guest comes from."""
    interval: float
    """Seconds."""
    token: Callable[[], str]
    """Called for each request."""

    async def visit(self, until: asyncio.Event) -> Visit:
        """Ask until told to stop."""
        visit, loop = Visit(), asyncio.get_running_loop()
        wire = await self.door.open(address=self.address)
        try:
            due = loop.time()
            while not until.is_set():
                header = [("Authorization", f"Bearer {self.token()}")]
                began = time.perf_counter()
                answer = await wire.request("GET", PATH, header)
                visit.seconds.append(time.perf_counter() - began)
                visit.statuses[answer.status] += 1
                # Those who are late do not ask the faster for it.
                due = max(due + self.interval, loop.time())
                with suppress(TimeoutError):
                    await asyncio.wait_for(until.wait(), due - loop.time())
        finally:
            wire.close()
        return visit
