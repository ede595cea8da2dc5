"""Idle: finds machines that nobody uses and puts them to sleep; notes when each was in use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.directory import DirectoryUnavailable
from matrix.model import Machine, UserId
from matrix.net import IWheel
from matrix.router.fleet import Fleet
from matrix.router.routes import Route, RouteTable
from matrix.router.yielding import IDLE

TOUCH_INTERVAL = 15.0
"""Seconds, at most, between two notes to the directory of who was active: one statement for
all of them."""

NEWS_SLACK = 1.0
"""Seconds for others to reach the directory again, beyond the times at which they try to."""

RATE = 5.0
"""C{MATRIX_REST_RATE}, unless it is told."""

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
        self._first: IDelayedCall | None = None
        self.failures = 0

    def start(self, *, now: bool = False) -> None:
        """Begin, the first time after one interval, or C{now}."""
        self._loop.start(self._seconds, now=now)

    def start_in(self, seconds: float) -> None:
        """Begin, the first time after so many seconds."""
        self._first = self._loop.clock.callLater(seconds, self._loop.start, self._seconds)

    def stop(self) -> None:
        """End; what is under way goes on."""
        if self._first is not None and self._first.active():
            self._first.cancel()
        if self._loop.running:
            self._loop.stop()

    def _once(self) -> Deferred[None]:
        async def work() -> None:
            await self._work()

        return Deferred.fromCoroutine(work()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self.failures += 1
        put_off(failure)


def put_off(failure: Failure) -> None:
    """Say that a job failed which will be done again."""
    if failure.check(DirectoryUnavailable):  # type: ignore[no-untyped-call]
        _log.warn("a periodic job is put off: {error}", error=failure.value)
    else:
        _log.failure("a periodic job failed; it goes on", failure=failure)


class Idle:
    """
    Watches the routes of this process.

    Another process may use the same machine, so what the directory knows is asked before a
    machine is put to sleep, and told often enough for others to ask. What is used within
    that time is their affair to say: L{matrix.router.yielding}.
    """

    def __init__(
        self,
        fleet: Fleet,
        wheel: IWheel,
        routes: RouteTable,
        timeout: float,
        rate: float = RATE,
    ) -> None:
        """
        @param timeout: seconds without use after which a machine sleeps whose user has no
            time of their own.
        @param rate: machines that are put to sleep in a second, at most.
        """
        self._fleet = fleet
        self._wheel = wheel
        self._routes = routes
        self._timeout = timeout
        self._pace = 1 / rate
        self._touched: dict[UserId, float] = {}
        self._informed_at = 0.0
        """When the directory knows again who was active, by the wheel's clock."""

    def heard(self, user_id: UserId | None) -> None:
        """
        The directory tells of a change. After an outage (C{None}) it does not know yet what
        other routers have in use: each has missed a note, and the next may be missed too.
        """
        if user_id is None:
            self._informed_at = self._wheel.now + 2 * self.touch_interval + NEWS_SLACK

    @property
    def interval(self) -> float:
        """Seconds between two looks: a quarter of the timeout, at most five seconds."""
        return min(self._timeout / 4, 5.0)

    @property
    def touch_interval(self) -> float:
        """Seconds between two notes: others must not take what is in use for idle."""
        return min(self._timeout / 4, TOUCH_INTERVAL)

    async def sweep(self) -> None:
        """
        Put to sleep what has not been used for the timeout, the longest unused first, and one
        after the other: Fly would have no crowd suspended at once, nor would whoever keeps
        their snapshots.
        """
        if not self._fleet.provider.sleeps or not self._is_informed:
            return
        unused = sorted(filter(self._unused, self._routes), key=self._used)
        if not unused:
            return
        leases = self._fleet.leases
        busy = await leases.of([route.user_id for route in unused])
        rested = False
        for route in unused:
            if rested:
                await deferLater(self._fleet.clock, self._pace)
            if not self._unused(route):
                continue
            machine = await self._consult(route)
            if not self._is_informed:
                return
            # Neither used elsewhere, nor here while we asked.
            if self._unused(route) and not leases.counts(busy.get(route.user_id), machine):
                route.machine.rest(IDLE)
                rested = True

    @property
    def _is_informed(self) -> bool:
        """Whether the directory can be asked what other routers have in use."""
        is_heard = self._fleet.directory.stale_since() is None
        return is_heard and self._wheel.now >= self._informed_at

    def _used(self, route: Route) -> float:
        return max(route.used or 0.0, route.used_elsewhere)

    def _unused(self, route: Route) -> bool:
        if route.backend is None:  # most routes
            return False
        used = route.used
        if used is None:
            return False
        if route.backend.requests:
            route.backend.used_at = used
        idle = self._wheel.now - self._used(route)
        timeout = route.idle_timeout or self._timeout
        return idle >= timeout and not self._fleet.saver.holds(route.user_id)

    async def _consult(self, route: Route) -> Machine | None:
        """Learn when others last used the machine; its row."""
        machine = await self._fleet.directory.machine(route.user_id)
        route.note_use(machine.last_active_at if machine is not None else None, self._wheel.now)
        return machine

    async def touch(self) -> None:
        """Tell the directory when machines were last in use."""
        active, news = {}, {}
        for route in self._routes:
            # Of many routes few are awake: these are left out before anything is reckoned.
            used = route.used if route.backend or route.cordoned or route.former else None
            if used is not None:
                active[route.user_id] = used
                if self._touched.get(route.user_id) != used and (at := route.used_at) is not None:
                    news[route.user_id] = at
        if not news:
            return
        try:
            await self._fleet.directory.touch(news)
        except DirectoryUnavailable:
            return  # the next round tells it
        self._touched = active
