"""The front: each request's way from its head to a machine or a refusal (DESIGN, section 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from matrix.auth import UNDERSCORE, Credential, harmless_protocol
from matrix.directory import DirectoryUnavailable, IDirectory
from matrix.errors import (
    BadGateway,
    GatewayTimeout,
    MatrixError,
    TooManyRequests,
    Unavailable,
)
from matrix.http import (
    TRY_AGAIN_LATER,
    Exchange,
    Relay,
    accept_key,
    close_frame,
)
from matrix.metrics import Registry, series
from matrix.model import Principal
from matrix.router.bearings import Bearings, Compass, taken
from matrix.router.closing import WebSocketGoodbye
from matrix.router.cors import is_preflight, preflight
from matrix.router.pages import Pages
from matrix.router.routes import Route, RouteTable
from matrix.router.story import Story
from matrix.router.trace import new_trace
from matrix.router.validate import Validator
from matrix.router.wake import Waker

OWN = b"/-/"
"""The only paths that Matrix keeps for itself."""

DEFAULT_RETRY = 2.0
"""Seconds after which to try again, before this machine's own wakes have told better."""


DEGRADED = b"Matrix-Degraded: directory\r\n"
"""What an answer says while changes in the directory may go unnoticed."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long and how much a user's requests may wait and run."""

    wake_timeout: float = 30.0
    """Seconds a request waits for its machine."""
    navigation_hold: float = 1.0
    """Seconds a browser waits before it gets the waking page."""
    stale_max: float = 600.0
    """Seconds for which the route table is used without the directory."""
    max_requests: int = 2000
    """Requests and streams under way for one user."""
    max_waiting: int = 2000
    """Requests waiting for one user's machine."""


class Front:
    """Handles every request of the public listener."""

    def __init__(
        self,
        clock: IReactorTime,
        validator: Validator,
        routes: RouteTable,
        waker: Waker,
        compass: Compass,
        own: Callable[[Exchange], None],
        pages: Pages,
        directory: IDirectory,
        registry: Registry,
        bounds: Bounds,
    ) -> None:
        """
        @param own: handles the paths below C{/-/}.
        """
        self._clock = clock
        self._validator = validator
        self._credential = validator.credential
        self._recall = validator.recall
        self._routes = routes
        self._route = routes.get
        self._waker = waker
        self._origins = compass.origins
        self._places = compass.places
        self._own = own
        self._pages = pages
        self._directory = directory
        self._registry = registry
        self._bounds = bounds
        self._cached = registry.counter(series.AUTH, "cached")
        self._held = registry.gauge(series.HELD_REQUESTS)

    def __call__(self, exchange: Exchange) -> None:
        """Steps 3 to 7 of the way; everything of a warm request happens before this returns."""
        story = exchange.story = Story()
        request = exchange.request
        if request.method == b"OPTIONS" and is_preflight(request):
            exchange.respond(204, preflight(request, self._origins))
            return
        if request.target.startswith(OWN):
            self._own(exchange)
            return
        credential = self._credential(request)
        principal = self._recall(credential.token)
        if principal is None:
            exchange.spawn(self._slowly(exchange, credential))
            return
        self._cached.value += 1
        story.authenticated(principal, exchange.started, perf_counter())
        route = self._route(principal.user_id)
        if route is not None and route.backend is not None and not self._too_stale():
            self._relay(exchange, route)
        else:
            exchange.spawn(self._cold(exchange, principal))

    async def _slowly(self, exchange: Exchange, credential: Credential) -> None:
        principal = await self._validator.verify(exchange, credential)
        exchange.story.authenticated(principal, exchange.started, perf_counter())
        await self._cold(exchange, principal)

    # wake

    def _too_stale(self) -> bool:
        since = self._directory.stale_since()
        return since is not None and self._clock.seconds() - since > self._bounds.stale_max

    async def _cold(self, exchange: Exchange, principal: Principal) -> None:
        """The way of a request whose machine is not known to be awake."""
        route = self._routes.get(principal.user_id)
        try:
            if route is not None and route.backend is not None and self._too_stale():
                await self._confirm(route)
            if route is None or route.backend is None:
                route = await self._awake(exchange, principal)
        except Unavailable as error:
            self._fail(exchange, error)
            return
        if route is not None:
            self._relay(exchange, route)

    async def _confirm(self, route: Route) -> None:
        """Nobody tells of changes any more, so ask whether the route still holds."""
        try:
            await self._waker.heed.refresh(route)
        except DirectoryUnavailable:
            raise Unavailable(
                "The directory cannot be reached.", reason="directory", retry_after=DEFAULT_RETRY
            ) from None

    async def _awake(self, exchange: Exchange, principal: Principal) -> Route | None:
        """The route once the machine is awake; C{None} if the waking page was shown instead."""
        if taken(exchange.request).passive:
            raise Unavailable("A prefetch wakes no machine.", reason="prefetch")
        request, story = exchange.request, exchange.story
        known = self._routes.get(principal.user_id)
        if known is not None and len(known.waiters) >= self._bounds.max_waiting:
            raise _too_many("waiting", self._bounds.max_waiting, "wait for your machine")
        navigation = request.is_navigation
        limit = self._bounds.navigation_hold if navigation else self._bounds.wake_timeout
        began = perf_counter()
        cause = "websocket" if request.wants_websocket else "request"
        waiting = self._waker.want(
            principal.user_id, "navigation" if navigation else cause, principal.email
        )
        self._held.value += 1
        timer = self._clock.callLater(limit, waiting.cancel)
        try:
            route = await waiting
        except CancelledError:
            if exchange.gone:
                return None
            if navigation:
                self._show_waking(exchange, principal)
                return None
            raise self._not_in_time(principal) from None
        finally:
            self._held.value -= 1
            if timer.active():
                timer.cancel()
        now = perf_counter()
        story.woken(route.wake, now - began, now)
        return route

    def _show_waking(self, exchange: Exchange, principal: Principal) -> None:
        route = self._routes.get(principal.user_id)
        estimate = route.estimate if route is not None else None
        wanted = exchange.request.target.decode("ascii")
        headers, body = self._pages.waking(exchange.request_id, wanted, estimate)
        retry = (b"Retry-After", b"%d" % max(1, round(self._retry(route))))
        exchange.respond(503, [*headers, retry], body)

    def _not_in_time(self, principal: Principal) -> Unavailable:
        route = self._routes.get(principal.user_id)
        limit = f"{self._bounds.wake_timeout:g} s"
        restoring = route.restoring if route is not None else None
        if restoring is not None:
            return Unavailable(
                f"The machine was not ready within {limit}: {restoring}.",
                reason="restoring",
                retry_after=self._retry(route),
            )
        return Unavailable(
            f"The machine was not ready within {limit}.",
            reason="wake-timeout",
            retry_after=self._retry(route),
        )

    def _retry(self, route: Route | None) -> float:
        """Seconds after which another request will probably be served."""
        if route is None or route.estimate is None:
            return DEFAULT_RETRY
        if route.restoring is None:
            return route.estimate
        return max(DEFAULT_RETRY, route.began + route.estimate - self._clock.seconds())

    def _fail(self, exchange: Exchange, error: MatrixError) -> None:
        """
        Answer that the machine cannot serve now. A browser shows no status of a failed
        WebSocket: that is accepted, and closed with a code and a reason that a script can read.
        """
        key = exchange.request.get(b"sec-websocket-key")
        if key is None or not exchange.request.wants_websocket:
            exchange.fail(error)
            return
        block = (
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %b\r\n"
            % accept_key(key)
        )
        chosen = harmless_protocol(exchange.request.get(b"sec-websocket-protocol") or b"")
        if chosen is not None:  # browsers fail a connection without, and show no reason then
            block += b"Sec-WebSocket-Protocol: %b\r\n" % chosen
        exchange.close_reason = error.reason or error.slug
        goodbye = close_frame(TRY_AGAIN_LATER, error.detail)
        exchange.upgrade_block(block, WebSocketGoodbye(self._clock, goodbye))

    # proxy

    def _relay(self, exchange: Exchange, route: Route, retried: bool = False) -> None:
        backend = route.backend
        if backend is None:  # it went to sleep between release and now
            exchange.spawn(self._cold(exchange, exchange.story.principal))
            return
        if backend.requests + len(backend.streams) >= self._bounds.max_requests:
            raise _too_many("in-flight", self._bounds.max_requests, "are under way")
        story: Story = exchange.story
        story.routed(route, backend, retried, exchange.request_id, perf_counter())
        request = exchange.request
        known: Bearings = request.fields.notes[Bearings]  # the validator took them
        target = request.target
        if UNDERSCORE in target:
            target = self._places.without_query(target)
        extra = route.identity + story.id_line
        if not known.traced:
            extra += new_trace()
        Relay(
            exchange,
            backend,
            known.rules,
            extra,
            self._annotate,
            self._unreachable,
            known.passive,
            target,
        ).start()

    def _unreachable(self, relay: Relay, error: Exception) -> None:
        """Believed awake, and nobody there: that is for wake to find out, once."""
        exchange = relay.exchange
        story: Story = exchange.story
        assert story.route is not None
        assert story.backend is not None
        self._waker.lost(story.route, story.backend)
        if not story.retried:
            exchange.spawn(self._again(exchange))
        elif isinstance(error, GatewayTimeout):
            self._fail(exchange, GatewayTimeout(str(error), reason="unreachable"))
        elif isinstance(error, ConnectionResetError):
            self._fail(exchange, BadGateway("The machine closed the connection.", reason="reset"))
        else:
            detail = "The machine accepts no connection."
            self._fail(exchange, Unavailable(detail, reason="refused", retry_after=1.0))

    async def _again(self, exchange: Exchange) -> None:
        try:
            route = await self._awake(exchange, exchange.story.principal)
        except Unavailable as error:
            self._fail(exchange, error)
            return
        if route is not None:
            self._relay(exchange, route, retried=True)

    def _annotate(self, relay: Relay) -> bytes:
        """The lines that an answer tells of its way with."""
        story: Story = relay.exchange.story
        lines = story.answered(relay.first_byte)
        if self._directory.stale_since() is not None:
            lines += DEGRADED
        return lines + story.id_line


def _too_many(reason: str, limit: int, what: str) -> TooManyRequests:
    detail = f"{limit} requests of yours {what} already."
    return TooManyRequests(detail, reason=reason, retry_after=DEFAULT_RETRY)
