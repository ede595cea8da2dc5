"""The paths below C{/-/}, which Matrix answers itself: health, how a wake goes on, and more."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from twisted.internet.interfaces import IReactorTime

from matrix.api import Api, EventStream, send_json
from matrix.auth import Reason, refusal
from matrix.errors import MatrixError, Unavailable
from matrix.http import Exchange
from matrix.model import Principal
from matrix.router.routes import Route, RouteTable
from matrix.router.wake import Waker

PROGRESS_INTERVAL = 0.5
"""Seconds between two reports to a waking page whose machine does nothing new."""

_NO_STORE = (b"Cache-Control", b"no-store")


class OwnPaths:
    """Handles requests below C{/-/}."""

    def __init__(
        self,
        clock: IReactorTime,
        routes: RouteTable,
        waker: Waker,
        ready: Callable[[], str | None],
    ) -> None:
        """
        @param ready: C{None} when requests can be served, else what is missing.
        """
        self._clock = clock
        self._routes = routes
        self._waker = waker
        self.identify: Callable[[Exchange], Awaitable[Principal]] = _nobody
        """Who sent a request; raises a L{MatrixError}. The front provides it."""
        self._ready = ready
        self._api = api = Api()
        self.add = api.add
        """Lets another answer on a path below C{/-/}."""
        api.add("GET", "/-/healthz", self._healthz)
        api.add("GET", "/-/readyz", self._readyz)
        api.add("GET", "/-/wake/events", self._wake_events)

    def __call__(self, exchange: Exchange) -> None:
        self._api(exchange)

    async def _healthz(self, exchange: Exchange) -> None:
        """This process lives."""
        send_json(exchange, {"status": "ok"}, headers=[_NO_STORE])

    async def _readyz(self, exchange: Exchange) -> None:
        """Requests can be served."""
        missing = self._ready()
        if missing is not None:
            raise Unavailable(missing, reason="not-ready", retry_after=1.0)
        send_json(exchange, {"status": "ready"}, headers=[_NO_STORE])

    async def _wake_events(self, exchange: Exchange) -> None:
        """How the sender's machine comes up, for the waking page."""
        principal = await self.identify(exchange)
        Progress(self._clock, EventStream(exchange), self._routes, self._waker, principal).begin()


async def _nobody(exchange: Exchange) -> Principal:
    raise refusal(Reason.MISSING)


class Progress:
    """Reports one user's wake to one page until it is over."""

    def __init__(
        self,
        clock: IReactorTime,
        stream: EventStream,
        routes: RouteTable,
        waker: Waker,
        principal: Principal,
    ) -> None:
        self._clock = clock
        self._stream = stream
        self._route = routes.ensure(principal.user_id, waker)
        self._waiting = waker.want(principal.user_id, "navigation", principal.email)

    def begin(self) -> None:
        """Tell the first state; further ones as they come, and the outcome."""
        self._stream.begin()
        self._route.listeners[self._changed] = None
        self._waiting.addCallbacks(self._ready, self._failed)
        self._tick()

    def _tick(self) -> None:
        if self._stream.over:
            self._leave()
        elif not self._waiting.called:
            self._tell(self._route)
            self._clock.callLater(PROGRESS_INTERVAL, self._tick)

    def _changed(self, route: Route) -> None:
        if self._stream.over:
            self._leave()
        elif not self._waiting.called:
            self._tell(route)

    def _tell(self, route: Route) -> None:
        if route.phase in ("awake", "resting"):
            return  # the outcome follows
        elapsed = self._clock.seconds() - route.began
        progress: dict[str, object] = {"state": route.phase, "elapsed_ms": round(elapsed * 1000)}
        if route.estimate is not None:
            progress["estimate_ms"] = round(route.estimate * 1000)
        if route.restoring is not None:
            progress |= asdict(route.restoring) | {"percent": route.restoring.percent}
        self._stream.send("progress", json.dumps(progress))

    def _ready(self, route: Route) -> None:
        self._stream.send("ready", "{}")
        self._end()

    def _failed(self, failure: object) -> None:
        error = getattr(failure, "value", None)
        if not isinstance(error, MatrixError):
            error = Unavailable()
        told = {"title": error.title, "detail": error.detail, "retry_after": error.retry_after or 1}
        self._stream.send("failed", json.dumps(told))
        self._end()

    def _end(self) -> None:
        self._route.listeners.pop(self._changed, None)
        self._stream.end()

    def _leave(self) -> None:
        """The page is gone."""
        self._route.listeners.pop(self._changed, None)
        self._waiting.cancel()
