"""What became of each thing that a user tried, and whether what was killed explains it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

RIGHT = "2xx"
CUT = "cut by a kill"
AWAY = "refused, its router away"

EARLY = 1.5
"""Seconds by which a stream may seem to have been silent for less than the machine's idle time:
a router's clock for use is a coarse one, and its news takes a while on a busy host."""

CROSSING = 1.0
"""Seconds within which what is said on a stream may come too late to keep its machine awake: a
router objects to a suspend by changing a row, and on a busy host that waits for its turn."""

KILL_SHOWS = 2.0
"""Seconds within which a client notices, on a busy host, that its router was killed."""


class Wrong(Exception):
    """What must not be: never explained by anything."""


class Refused(Exception):
    """An error of Matrix's own, properly told."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}".rstrip())


class Broken(Exception):
    """The connection ended before its time."""


class Stalls:
    """
    When this process had to wait for a processor. What its users see late for that is no router's
    fault: an answer that lay unread for seconds seems to have come a moment ago.
    """

    STEP = 0.1
    """Seconds between two looks at the clock."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []

    def note(self, seconds: float) -> None:
        """One of so many seconds is over."""
        self._seen.append((time.monotonic(), seconds))

    def longest(self, since: float = -inf) -> float:
        """Seconds of the longest that was over after C{since}."""
        return max((seconds for at, seconds in reversed(self._seen) if at >= since), default=0.0)

    async def watch(self, until: float) -> None:
        """Notice them until then, by the loop's time."""
        loop = asyncio.get_running_loop()
        while (now := loop.time()) < until:
            await asyncio.sleep(self.STEP)
            late = loop.time() - now - self.STEP
            if late > self.STEP:
                self.note(late)


@dataclass
class Outages:
    """When which router was killed, and until when it was away."""

    _by_router: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    count: Counter[str] = field(default_factory=Counter)
    """What was done, and how often."""
    stalls: Stalls = field(default_factory=Stalls)

    @contextmanager
    def of(self, router: str, kind: str) -> Iterator[None]:
        """While a router, or part of it, is killed and comes back."""
        outage = [time.monotonic(), inf]
        self._by_router[router].append(outage)
        try:
            yield
        finally:
            outage[1] = time.monotonic() + KILL_SHOWS
        self.count[kind] += 1

    def explain(self, router: str, began: float) -> bool:
        """Whether a connection that was opened at C{began}, and broke now, was killed."""
        late = self.stalls.longest(began)
        return any(end + late >= began for _, end in self._by_router[router])


@dataclass
class Tally:
    """Everything that users met."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """What came of it, by what was tried."""
    faults: list[str] = field(default_factory=list)
    """What must not be."""

    def note(self, tried: str, outcome: str) -> None:
        """Count one attempt."""
        self.outcomes[tried][outcome] += 1

    def fault(self, tried: str, outcome: str, story: str) -> None:
        """Count one attempt that ended as none may."""
        self.note(tried, f"{outcome}, UNEXPLAINED")
        self.faults.append(f"{time.strftime('%H:%M:%S')} {tried}: {outcome}: {story}")

    def count(self, tried: str, outcome: str = "") -> int:
        """How often something was tried, or came to this."""
        seen = self.outcomes.get(tried, Counter())
        return seen[outcome] if outcome else seen.total()

    def report(self) -> str:
        """All figures."""
        lines = []
        for name, outcomes in sorted(self.outcomes.items()):
            told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
            lines.append(f"  {name:12}{outcomes.total():>8}: {told}")
        return "\n".join(lines)
