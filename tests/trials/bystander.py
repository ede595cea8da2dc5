"""A user who sends requests all the time, and what is seen meanwhile, in windows of time."""

from __future__ import annotations

import asyncio
import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import h11
import uvloop

from matrix.testing.wire import Door, Wire

CONNECTIONS = 2
WINDOW = 2.0
"""Seconds: some hundred requests, of which the slowest hundredth is looked at."""
ENOUGH = 50
"""Requests in a window that says anything about a hundredth."""
MEMORY_TICK = 0.1
PATIENCE = 60.0
"""Seconds for one answer."""
MIB = 1 << 20

Span = tuple[float, float]
Number = TypeVar("Number", int, float)


@dataclass
class Bystander:
    """Watches one Matrix, from a thread of its own."""

    door: Door
    token: str
    memory: Callable[[], int]
    """Bytes of the router."""
    path: str = "/v1/files/"
    pause: float = 0.005
    """Seconds between an answer and the next request of a connection."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Statuses, and the names of what was raised."""
    times: list[tuple[float, float]] = field(default_factory=list)
    """When a request was sent, and how many seconds it took."""
    sizes: list[tuple[float, int]] = field(default_factory=list)
    """The router's memory, and when that was."""
    spans: list[tuple[str, Span]] = field(default_factory=list)
    """What went on when."""

    def start(self) -> None:
        """Begin."""
        self._over = False
        works = (self._ask_all_the_time, self._weigh_all_the_time)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; returns when the last answer is there."""
        self._over = True
        for thread in self._threads:
            thread.join()

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Note that something goes on."""
        began = time.monotonic()
        yield
        self.spans.append((what, (began, time.monotonic())))

    # what was seen

    def p99s(self, what: str) -> list[float]:
        """Of each window within what went on, in milliseconds."""
        found = []
        for window in self._windows(what):
            seconds = [taken for _, taken in _within(self.times, window)]
            if len(seconds) >= ENOUGH:
                found.append(hundredth(seconds) * 1000)
        return found

    def p99(self, what: str) -> float:
        """Of all requests meanwhile, in milliseconds."""
        return hundredth(self._taken(what)) * 1000

    def usual_p99(self, what: str) -> float:
        """The median of L{p99s}, which a few pauses of a busy host do not decide."""
        found = self.p99s(what)
        return statistics.median(found) if found else math.nan

    def slowest(self, what: str) -> float:
        """Milliseconds."""
        return max(self._taken(what), default=math.nan) * 1000

    def _taken(self, what: str) -> list[float]:
        spans = [span for name, span in self.spans if name == what]
        return [taken for span in spans for _, taken in _within(self.times, span)]

    def mebibytes(self, what: str, of: Callable[[list[int]], int] = max) -> float:
        """Of the router's memory."""
        seen = [
            size for n, span in self.spans if n == what for _, size in _within(self.sizes, span)
        ]
        return of(seen) / MIB

    def seconds(self, what: str) -> float:
        """For how long it went on."""
        return sum(end - began for name, (began, end) in self.spans if name == what)

    def _windows(self, what: str) -> Iterator[Span]:
        for name, (began, end) in self.spans:
            while name == what and began + WINDOW <= end:
                yield began, began + WINDOW
                began += WINDOW

    # its threads

    def _weigh_all_the_time(self) -> None:
        while not self._over:
            self.sizes.append((time.monotonic(), self.memory()))
            time.sleep(MEMORY_TICK)

    def _ask_all_the_time(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._ask())

    async def _ask(self) -> None:
        await asyncio.gather(*(self._connection() for _ in range(CONNECTIONS)))

    async def _connection(self) -> None:
        wire: Wire | None = None
        while not self._over:
            began = time.monotonic()
            try:
                wire = wire or await self.door.open(self.token)
                async with asyncio.timeout(PATIENCE):
                    answer = await wire.request("GET", self.path)
                self.outcomes[str(answer.status)] += 1
            except (OSError, TimeoutError, h11.ProtocolError) as error:
                self.outcomes[type(error).__name__] += 1
                wire = None
            self.times.append((began, time.monotonic() - began))
            await asyncio.sleep(self.pause)
        if wire is not None:
            wire.close()


def hundredth(seconds: Sequence[float]) -> float:
    """What one in a hundred exceeds."""
    return sorted(seconds)[len(seconds) * 99 // 100] if seconds else math.nan


def _within(seen: Sequence[tuple[float, Number]], span: Span) -> Iterator[tuple[float, Number]]:
    return ((at, value) for at, value in seen if span[0] <= at < span[1])
