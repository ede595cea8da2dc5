"""The public side of one process: who comes in, how they are answered, what is noted of it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from matrix.auth import (
    Failures,
    Origins,
    Places,
    TokenGate,
    supabase_cookie_name,
)
from matrix.http import Exchange, Hold, ServerFactory, TrustedProxies
from matrix.metrics import series
from matrix.router.accessline import format_combined, format_record
from matrix.router.accesslog import AccessLog, NoAccessLog, Output, open_access_log
from matrix.router.bearings import Compass
from matrix.router.engine import Engine, Machinery
from matrix.router.entrance import Entrance
from matrix.router.errorpages import render_for
from matrix.router.front import Bounds, Front
from matrix.router.ledger import Ledger
from matrix.router.own import OwnPaths
from matrix.router.pages import Pages
from matrix.router.passes import Passes
from matrix.router.signin.reception import Reception, open_reception
from matrix.router.stall import Stall
from matrix.router.supplies import Supplies
from matrix.router.tenure import Tenure
from matrix.router.tickets import Tickets
from matrix.router.trust import Trust
from matrix.router.validate import Validator
from matrix.settings import Settings

GRACE = 5.0
"""Seconds that open answers get when the router stops. Machines and PostgreSQL end after them,
and whoever pressed Ctrl-C waits for it all."""


class Door:
    """Validates who comes and hands them to their machines; has the access log."""

    def __init__(self, engine: Engine, tls: Any, output: Output = Output()) -> None:  # noqa: B008 -- frozen
        """
        @param tls: the listeners' context; C{None} for plain ones.
        @param output: what standard output is to the access log.
        """
        self._engine = engine
        self._tls = tls
        self._output = output
        self._log: AccessLog = NoAccessLog()
        self._ledger: Ledger | None = None
        self._trust = Trust(engine.reactor, engine.settings, engine.registry)
        self._reception: Reception | None = None
        self._tenure: Tenure | None = None
        self._factory: ServerFactory | None = None
        self._entrance: Entrance | None = None
        self._ports: list[IListeningPort] = []
        self._stands: dict[int, list[IListeningPort]] = {}
        self._closed = False

    # starting

    def open_log(self) -> None:
        """
        Begin the access log.

        @raise ConfigurationError: it cannot be written.
        """
        engine, settings = self._engine, self._engine.settings
        reactor, registry = engine.reactor, engine.registry
        self._log = open_access_log(
            settings.access_log,
            reactor,
            partial(deferToThreadPool, reactor, reactor.getThreadPool()),
            registry.counter(series.ACCESS_LOG_DROPPED),
            registry.counter(series.ACCESS_LOG_ERRORS),
            format_combined if settings.access_log_format == "combined" else format_record,
            self._output,
        )
        self._log.start()

    def reopen_log(self) -> None:
        """Go on in a new file of the same name."""
        self._log.reopen()

    async def open(self, supplies: Supplies, live: Machinery, public: list[socket.socket]) -> None:
        """Learn the issuer's keys, then accept connections."""
        gate = await self._trust.open(supplies)
        reception = open_reception(self._engine, supplies, live.directory, gate)
        self._reception = reception
        self._tenure = tenure = Tenure(self._engine, supplies, live, gate, self._exchanges)
        if reception.renew is not None:
            tenure.renew_with(reception.renew)
        self._factory = factory = self._front(supplies, gate, live, tenure, reception)
        await tenure.start()
        self._engine.registry.watch(
            series.OPEN_CONNECTIONS, lambda: len(factory.connections), "client"
        )
        self._entrance = entrance = Entrance(self._engine, self._tls, factory)
        for listener in public:
            self._ports.append(await entrance.open(listener))

    async def stand_in(self, others: Mapping[int, Sequence[socket.socket]]) -> None:
        """
        Accept connections from other workers' queues too, for as long as they do not.

        @param others: the listeners of each of them, by number; those that are not named
            any more accept for themselves again.
        """
        for number in self._stands.keys() - others.keys():
            for port in self._stands.pop(number):
                port.stopListening()
        for number in others.keys() - self._stands.keys():
            ports: list[IListeningPort] = []
            self._stands[number] = ports
            for listener in others[number]:
                if self._entrance is not None and self._stands.get(number) is ports:
                    port = await self._entrance.open(listener.dup())
                    if self._stands.get(number) is ports and not self._closed:
                        ports.append(port)
                    else:  # it is back, or we are to end
                        port.stopListening()

    def _exchanges(self) -> list[Exchange]:
        return self._factory.exchanges() if self._factory is not None else []

    def _front(
        self,
        supplies: Supplies,
        gate: TokenGate,
        live: Machinery,
        tenure: Tenure,
        reception: Reception,
    ) -> ServerFactory:
        engine, settings = self._engine, self._engine.settings
        pages = Pages(
            embedded=supplies.links is not None,
            sign_in=settings.login_url if settings.login == "redirect" else None,
        )
        compass = compass_for(settings, supplies.issuer)
        tickets = Tickets(live.directory.tickets)
        own = OwnPaths(engine.reactor, engine.routes, live.waker, self._missing)
        failures = Failures(settings.auth_failures, engine.reactor.seconds)
        engine.registry.watch(series.AUTH_LIMITED, failures.limited)
        validator = Validator(
            gate,
            engine.registry,
            failures,
            Stall(engine.reactor),
            compass,
            tickets,
            reception.resolve,
        )
        validator.check = tenure.check
        front = Front(
            engine.reactor,
            validator,
            engine.routes,
            live.waker,
            compass,
            own,
            pages,
            live.directory,
            engine.registry,
            bounds_from(settings),
        )
        own.identify = validator.principal
        Passes(validator.principal, tickets, compass.origins).register(own.add)
        greeting = reception.furnish(own.add, validator, compass)
        self._ledger = ledger = Ledger(engine.registry, self._log, engine.wheel)
        hold = Hold(settings.max_held_bytes)
        engine.registry.watch(series.HELD_BYTES, lambda: hold.bytes)
        return ServerFactory(
            front,
            engine.wheel,
            engine.limits,
            render_for(pages, engine.registry, compass.origins, greeting),
            ledger.finished,
            hold,
            TrustedProxies(settings.trusted_networks),
        )

    def _missing(self) -> str | None:
        """What a request could not be served without."""
        live = self._engine.live
        if live is None or not self._ports:
            return "The router is starting."
        since = live.directory.stale_since()
        now, limit = self._engine.reactor.seconds(), self._engine.settings.stale_max
        if since is not None and now - since > limit:
            return "The directory cannot be reached."
        return None

    # stopping

    def close(self) -> None:
        """Accept no more."""
        self._closed = True
        for port in (*self._ports, *(port for stand in self._stands.values() for port in stand)):
            port.stopListening()
        if self._factory is not None:
            self._factory.drain()

    async def finish(self) -> None:
        """Give answers under way a moment; end streams properly, then everything."""
        for route in self._engine.routes:
            route.drain("restart")
        factory, reactor = self._factory, self._engine.reactor
        if factory is None:
            return
        deadline = reactor.seconds() + GRACE
        while factory.connections and reactor.seconds() < deadline:
            await deferLater(reactor, 0.05)
        for connection in list(factory.connections):
            connection.abort()
        if self._reception is not None:
            self._reception.stop()
        if self._tenure is not None:
            await self._tenure.stop()

    async def stop(self) -> None:
        """Let go of the issuer's keys and of the access log."""
        self._trust.stop()
        if self._ledger is not None:
            self._ledger.settle()
        await self._log.stop()


def compass_for(settings: Settings, issuer: str) -> Compass:
    """
    Where credentials may be, and which pages may use them, as configured.

    @param issuer: after whose host Supabase's cookie is named unless the operator names it.
    """
    cookie = settings.supabase_cookie or supabase_cookie_name(issuer)
    places = Places(None if cookie == "off" else cookie.encode(), settings.query_token)
    return Compass(places, Origins(settings.accepted_origins))


def bounds_from(settings: Settings) -> Bounds:
    """How long and how much requests may wait and run, as configured."""
    return Bounds(
        settings.wake_timeout,
        settings.navigation_hold,
        settings.stale_max,
        settings.max_user_requests,
        settings.max_user_waiting,
    )
