"""One at a time on each machine: among our own callers, and among processes of this host."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

_T = TypeVar("_T")

_log = Logger()


class Turns:
    """
    A lock for each name.

    C{take} is asked for the lock among processes, again and again, by whoever holds the
    one among our own callers.
    """

    def __init__(self) -> None:
        self._locks: dict[str, DeferredLock] = {}

    @asynccontextmanager
    async def turn(self, name: str, take: Callable[[], Awaitable[int]]) -> AsyncIterator[int]:
        """
        Wait for C{name}'s turn.

        @param take: has a descriptor once the lock among processes is ours; it is closed,
            and so released, at the end.
        """
        lock = self._locks.setdefault(name, DeferredLock())
        await lock.acquire()
        try:
            descriptor = await take()
            try:
                yield descriptor
            finally:
                os.close(descriptor)
        finally:
            lock.release()
            # The next in turn may have run to its end within release().
            if not lock.locked and self._locks.get(name) is lock:
                del self._locks[name]

    async def drained(self) -> None:
        """Wait until everyone who waits now has had a turn."""
        for lock in list(self._locks.values()):
            await lock.acquire()
            lock.release()


def shielded(work: Deferred[_T]) -> Deferred[_T]:
    """
    The result of C{work}, which goes on when the caller no longer waits: half a start is
    worse than one that nobody asked for any more. A failure that nobody waits for is logged.
    """
    waiting: Deferred[_T] = Deferred()

    def passed_on(result: _T | Failure) -> None:
        if waiting.called and isinstance(result, Failure):
            _log.failure("machine.failed-unattended", failure=result)
        waiting.callback(result)  # a Failure goes to the errbacks

    work.addBoth(passed_on)
    return waiting
