"""Idle: finds machines that nobody uses and puts them to sleep; notes when each was in use."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.directory import DirectoryUnavailable, IDirectory
from matrix.model import UserId
from matrix.net import IWheel
from matrix.router.routes import RouteTable

TOUCH_INTERVAL = 15.0
"""Seconds between two notes to the directory of who was active: one statement for all."""

_log = Logger()


class Periodic:
    """Does something again and again; one failure is logged and does not stop it."""

    def __init__(
        self, clock: IReactorTime, seconds: float, work: Callable[[], Awaitable[None]]
    ) -> None:
        self._loop = LoopingCall(self._once)
        self._loop.clock = clock
        self._seconds = seconds
        self._work = work
        self.failures = 0

    def start(self) -> None:
        """Begin, the first time after one interval."""
        self._loop.start(self._seconds, now=False)

    def stop(self) -> None:
        """End; what is under way goes on."""
        if self._loop.running:
            self._loop.stop()

    def _once(self) -> Deferred[None]:
        async def work() -> None:
            await self._work()

        return Deferred.fromCoroutine(work()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self.failures += 1
        if failure.check(DirectoryUnavailable):  # type: ignore[no-untyped-call]
            _log.warn("a periodic job is put off: {error}", error=failure.value)
        else:
            _log.failure("a periodic job failed; it goes on", failure=failure)


class Idle:
    """Watches the routes of this process."""

    def __init__(
        self, wheel: IWheel, routes: RouteTable, directory: IDirectory, timeout: float
    ) -> None:
        """@param timeout: seconds without use after which a machine sleeps whose user has no
        time of their own."""
        self._wheel = wheel
        self._routes = routes
        self._directory = directory
        self._timeout = timeout
        self._touched: dict[UserId, float] = {}

    @property
    def interval(self) -> float:
        """Seconds between two looks: a quarter of the timeout, at most five seconds."""
        return min(self._timeout / 4, 5.0)

    async def sweep(self) -> None:
        """Put to sleep what has not been used for the timeout."""
        now = self._wheel.now
        for route in self._routes:
            backend = route.backend
            if backend is None:
                continue
            if backend.requests:
                backend.used_at = now
            elif now - backend.used_at >= (route.idle_timeout or self._timeout):
                route.machine.rest("idle")

    async def touch(self) -> None:
        """Tell the directory when machines were last in use."""
        now, clock = self._wheel.now, time.time()
        active = {route.user_id: route.backend.used_at for route in self._routes if route.backend}
        news = {
            user_id: clock - (now - used_at)
            for user_id, used_at in active.items()
            if self._touched.get(user_id) != used_at
        }
        if not news:
            return
        try:
            await self._directory.touch(news)
        except DirectoryUnavailable:
            return  # the next round tells it
        self._touched = active
