"""A line before something that one at a time may do: the urgent ones first, then as they came."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from itertools import count

from twisted.internet.defer import Deferred


class Line:
    """Who waits may be cancelled, and leaves nothing behind."""

    def __init__(self) -> None:
        self._busy = False
        self._waiting: list[tuple[int, int, Deferred[None]]] = []
        self._order = count()

    @asynccontextmanager
    async def turn(self, priority: int) -> AsyncIterator[None]:
        """
        Wait for one's turn.

        @param priority: the lower, the sooner.
        """
        if self._busy:
            turn: Deferred[None] = Deferred()
            heappush(self._waiting, (priority, next(self._order), turn))
            await turn
        self._busy = True
        try:
            yield
        finally:
            self._next()

    def _next(self) -> None:
        while self._waiting:
            _, _, turn = heappop(self._waiting)
            if not turn.called:  # nor given up
                turn.callback(None)
                return
        self._busy = False
