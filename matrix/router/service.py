"""The router's parts, put together and started in order; stopped in the reverse."""

from __future__ import annotations

import signal
import socket
import sys
import time
from functools import partial
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.web.client import Agent

from matrix.auth import (
    JwksKeys,
    MachineSecrets,
    Policy,
    TokenGate,
    allows_set_cookie,
    without_session_cookies,
)
from matrix.directory import PostgresDirectory, open_directory
from matrix.http import (
    Admission,
    Backend,
    Counters,
    HeaderRules,
    Hold,
    Limits,
    ServerFactory,
    files_for_clients,
)
from matrix.machines import LocalProvider
from matrix.metrics import LoopLag, process_registry, series
from matrix.model import Address
from matrix.net import Daemon, NativeClientEndpoint, NativeServerEndpoint, Wheel, event_loop
from matrix.router.accessline import format_combined, format_record
from matrix.router.accesslog import AccessLog, open_access_log
from matrix.router.embedded import Embedded
from matrix.router.errorpages import render_for
from matrix.router.fleet import Fleet
from matrix.router.front import Bounds, Front
from matrix.router.idle import TOUCH_INTERVAL, Idle, Periodic
from matrix.router.internal import Instance, InternalApi
from matrix.router.ledger import Ledger
from matrix.router.own import OwnPaths
from matrix.router.owners import this_router
from matrix.router.pages import Pages
from matrix.router.reconcile import Reconciler
from matrix.router.routes import RouteTable
from matrix.router.supplies import Supplies, from_settings
from matrix.router.wake import Waker
from matrix.settings import Settings

UPSTREAM_IDLE = 4.0
"""Seconds an unused connection to a machine is kept: less than the 5 s after which uvicorn
and Node.js close theirs."""
RECONCILE_INTERVAL = 60.0
"""Seconds between two passes over all machines."""
GRACE = 5.0
"""Seconds that open answers get when the router stops. Machines and PostgreSQL end after them,
and whoever pressed Ctrl-C waits for it all."""

_log = Logger()


class Router(Daemon):
    """One router process."""

    name = "matrix"

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        embedded: Embedded | None,
        public: list[socket.socket],
        internal: list[socket.socket],
        tls: Any,
    ) -> None:
        """
        @param public: listening sockets, bound already; C{internal} as well.
        @param tls: the public listener's context.
        """
        super().__init__(reactor)
        self._settings = settings
        self._embedded = embedded
        self._sockets = (public, internal)
        self._tls = tls
        self._loop = event_loop(reactor)
        self._wheel = Wheel(reactor)
        self._registry = process_registry()
        self._routes = RouteTable()
        self._counters = Counters()
        self._limits = limits_from(settings)
        self._ports: list[IListeningPort] = []
        self._factories: list[ServerFactory] = []
        self._periodic: list[Periodic] = []
        self._log: AccessLog | None = None
        self._directory: PostgresDirectory | None = None
        self._provider: LocalProvider | None = None
        self._keys: JwksKeys | None = None
        self._waker: Waker | None = None
        self._lag = LoopLag(reactor, self._registry.histogram(series.LOOP_LAG_SECONDS))

    # starting

    async def start(self) -> None:
        self._wheel.start()
        self._lag.start()
        self._log = self._open_log()
        supplies = await self._embedded.start() if self._embedded else from_settings(self._settings)
        self._directory = directory = await open_directory(self._reactor, supplies.dsn)
        gate = await self._open_gate(supplies)
        secrets = MachineSecrets(supplies.master)
        settings = self._settings
        self._provider = provider = LocalProvider(
            settings.state_dir, settings.local_command, self._reactor
        )
        fleet = Fleet(self._reactor, directory, provider, secrets, self._connect, this_router())
        self._waker = waker = Waker(fleet, self._routes, self._registry)
        provider.watch(waker.died)
        directory.watch(waker.changed)
        reconciler = Reconciler(fleet, waker)
        await reconciler.run()
        idle = Idle(self._wheel, self._routes, directory, settings.idle_timeout)
        self._every(idle.interval, idle.sweep)
        self._every(TOUCH_INTERVAL, idle.touch)
        self._every(RECONCILE_INTERVAL, reconciler.run)
        self._watch_gauges(directory)
        await self._listen(
            self._front(supplies, gate, directory, waker), directory, waker, supplies
        )

    def _every(self, seconds: float, work: Any) -> None:
        periodic = Periodic(self._reactor, seconds, work)
        periodic.start()
        self._periodic.append(periodic)

    def _open_log(self) -> AccessLog:
        settings, registry = self._settings, self._registry
        target = settings.access_log
        if self._embedded is not None and "access_log" not in settings.model_fields_set:
            target = str(self._embedded.directory / "access.log")
        log = open_access_log(
            target,
            self._reactor,
            partial(deferToThreadPool, self._reactor, self._reactor.getThreadPool()),
            registry.counter(series.ACCESS_LOG_DROPPED),
            registry.counter(series.ACCESS_LOG_ERRORS),
            format_combined if settings.access_log_format == "combined" else format_record,
        )
        log.start()
        self._loop.add_signal_handler(signal.SIGHUP, log.reopen)
        return log

    async def _open_gate(self, supplies: Supplies) -> TokenGate:
        settings = self._settings
        kept = settings.state_dir / "jwks.json"
        self._keys = keys = JwksKeys(
            Agent(self._reactor),  # type: ignore[no-untyped-call]
            supplies.jwks_url,
            self._reactor,
            time.time,
            kept,
        )
        policy = Policy(
            supplies.issuer, settings.audience, settings.role, leeway=settings.token_leeway
        )
        gate = TokenGate(keys, policy, time.time)
        asked = keys.start()
        if not kept.exists():  # with kept keys requests can be served before the issuer answers
            await asked
        return gate

    def _connect(self, address: Address) -> Backend:
        return Backend(
            NativeClientEndpoint(self._loop, address),
            self._wheel,
            self._limits,
            self._counters,
            UPSTREAM_IDLE,
        )

    def _front(
        self, supplies: Supplies, gate: TokenGate, directory: PostgresDirectory, waker: Waker
    ) -> ServerFactory:
        settings = self._settings
        pages = Pages(embedded=self._embedded is not None)
        ledger = Ledger(self._registry, self._log or self._open_log(), self._wheel)
        rules = HeaderRules(without_session_cookies, allows_set_cookie)
        own = OwnPaths(self._reactor, self._routes, waker, self._missing, supplies.sign_ins)
        front = Front(
            self._reactor,
            gate,
            self._routes,
            waker,
            rules,
            own,
            pages,
            directory,
            self._registry,
            Bounds(
                settings.wake_timeout,
                settings.navigation_hold,
                settings.stale_max,
                settings.max_user_requests,
                settings.max_user_waiting,
            ),
        )
        own.identify = front.principal
        hold = Hold(settings.max_held_bytes)
        self._registry.watch(series.HELD_BYTES, lambda: hold.bytes)
        return ServerFactory(
            front,
            self._wheel,
            self._limits,
            render_for(pages, self._registry),
            ledger.finished,
            self._admission(),
            hold,
        )

    def _admission(self) -> Admission:
        settings, counters = self._settings, self._counters
        total = settings.max_connections or files_for_clients()
        return Admission(total, settings.max_connections_per_address, lambda: counters.open)

    async def _listen(
        self,
        front: ServerFactory,
        directory: PostgresDirectory,
        waker: Waker,
        supplies: Supplies,
    ) -> None:
        public, internal = self._sockets
        scheme = "https" if self._tls is not None else "http"
        listeners = {"public": url(scheme, public[0]), "internal": url("http", internal[0])}
        instance = Instance(self._settings.provider, listeners, self._reactor.seconds())
        inside = InternalApi(
            directory, waker, self._registry, instance, self._reactor, supplies.admin_token
        )
        self._factories = [front, ServerFactory(inside, self._wheel, self._limits)]
        for listener in internal:
            await self._serve(listener, None, self._factories[1])
        for listener in public:
            await self._serve(listener, self._tls, front)
        if self._embedded is not None:
            self._embedded.announce(listeners["public"], listeners["internal"], say)
        _log.info("ready on {public}; internal {internal}", **listeners)

    async def _serve(self, listener: socket.socket, tls: Any, factory: ServerFactory) -> None:
        timeout = self._settings.handshake_timeout
        endpoint = NativeServerEndpoint(self._loop, listener, tls, timeout)
        self._ports.append(await endpoint.listen(factory))

    # running

    def _missing(self) -> str | None:
        """What a request could not be served without."""
        directory = self._directory
        if directory is None or not self._ports:
            return "The router is starting."
        since = directory.stale_since()
        if since is not None and self._reactor.seconds() - since > self._settings.stale_max:
            return "The directory cannot be reached."
        return None

    def _watch_gauges(self, directory: PostgresDirectory) -> None:
        registry, counters = self._registry, self._counters

        def stale() -> float:
            since = directory.stale_since()
            return 0.0 if since is None else float(self._reactor.seconds() - since)

        registry.watch(series.DIRECTORY_STALE_SECONDS, stale)
        registry.watch(series.OPEN_CONNECTIONS, self._open_connections, "client")
        registry.watch(series.OPEN_CONNECTIONS, lambda: counters.open, "machine")
        registry.watch(series.OPEN_STREAMS, self._routes.requests, "http")
        for kind in ("sse", "websocket"):
            registry.watch(series.OPEN_STREAMS, partial(self._routes.streams, kind), kind)
        for direction in ("in", "out"):
            amount = registry.counter(series.BYTES, "machine", direction)
            amount.read = partial(getattr, counters, f"bytes_{direction}")
        for result in ("connected", "reused", "failed"):
            connections = registry.counter(series.UPSTREAM_CONNECTIONS, result)
            connections.read = partial(getattr, counters, result)
        retries = registry.counter(series.UPSTREAM_RETRIES, "reset")
        retries.read = partial(getattr, counters, "retried")

    def _open_connections(self) -> float:
        return float(sum(len(factory.connections) for factory in self._factories[:1]))

    # stopping

    async def stop(self) -> None:
        for port in self._ports:
            port.stopListening()
        for factory in self._factories:
            factory.drain()
        for periodic in self._periodic:
            periodic.stop()
        if self._waker is not None:
            await self._waker.stop()
        await self._finish_answers()
        if self._provider is not None:
            await self._provider.close(stop_machines=self._embedded is not None)
        if self._keys is not None:
            self._keys.stop()
        if self._directory is not None:
            await self._directory.close()
        if self._embedded is not None:
            await self._embedded.stop()
        if self._log is not None:
            await self._log.stop()
        self._lag.stop()
        self._wheel.stop()

    async def _finish_answers(self) -> None:
        """Give answers under way a moment; end streams properly, then everything."""
        for route in self._routes:
            if route.backend is not None:
                route.backend.drain("restart")
        deadline = self._reactor.seconds() + GRACE
        while self._open_connections() and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, 0.05)
        for factory in self._factories:
            for connection in list(factory.connections):
                connection.abort()


def limits_from(settings: Settings) -> Limits:
    """The data path's limits, as configured."""
    return Limits(
        target=settings.max_target,
        head=settings.max_head,
        fields=settings.max_fields,
        head_time=settings.head_timeout,
        body_silence=settings.body_timeout,
        keep_alive=settings.keepalive_timeout,
        response_time=settings.response_timeout,
        stream_silence=settings.stream_timeout,
    )


def url(scheme: str, listener: socket.socket) -> str:
    """Where a listening socket is reached from this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("127.0.0.1", "::1") and scheme == "https":
        host = "localhost"
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


def say(text: str) -> None:
    """Tell the person at the terminal, past the log that twistd makes of standard output."""
    if sys.__stdout__ is not None:
        sys.__stdout__.write(text + "\n")
        sys.__stdout__.flush()
