"""Threads of the store's own: S3 calls block, and must neither starve others nor pile up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from matrix.errors import MatrixError
from matrix.snapshots.interfaces import StoreUnavailable

T = TypeVar("T")

THREADS = 16
"""Calls under way at once. None waits for a client: each moves one chunk, or asks one thing."""

QUEUE = 512
"""Calls that wait for a thread. With more the store is too slow for us, and says so, rather
than that every caller waits for minutes."""

_log = Logger()


class StoreThreads:
    """A named pool with a bounded queue."""

    def __init__(self, reactor: Any, name: str = "store") -> None:
        """@param reactor: IReactorThreads."""
        self._reactor = reactor
        self._pool = ThreadPool(0, THREADS, name)
        self.under_way = 0
        """Calls that run or wait."""

    def start(self) -> None:
        """Must come before the first call."""
        self._pool.start()

    def stop(self) -> None:
        """Wait for the calls under way. B{Blocks}, for as long as a call may take."""
        self._pool.stop()

    def run(
        self, function: Callable[..., T], *args: Any, late: Callable[[T], None] | None = None
    ) -> Deferred[T]:
        """
        The result of C{function(*args)} from a thread. Cancelling does not reach the
        thread: it abandons the result.

        @param late: gets a result that nobody waits for any more, to let go of it.
        @raise StoreUnavailable: too many calls wait already.
        """
        if self.under_way >= QUEUE:
            return fail(StoreUnavailable("the store is too slow for what is asked of it"))
        self.under_way += 1
        waiting: Deferred[T] = Deferred()

        def arrived(result: T) -> None:
            self.under_way -= 1
            if not waiting.called:
                waiting.callback(result)
            elif late is not None:
                late(result)

        def failed(failure: Failure) -> None:
            self.under_way -= 1
            if not waiting.called:
                waiting.errback(failure)
            elif not isinstance(failure.value, MatrixError):
                _log.failure("work for a client who left failed", failure=failure)

        working = deferToThreadPool(self._reactor, self._pool, function, *args)
        working.addCallbacks(arrived, failed)
        return waiting

    def release(self, function: Callable[[], None]) -> None:
        """Call C{function} in a thread, with nobody waiting for it, however long the queue."""
        working = deferToThreadPool(self._reactor, self._pool, function)
        working.addErrback(lambda failure: _log.failure("clearing away failed", failure=failure))
