"""The public listeners: who may connect, within the files there are, and what became of them."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from functools import partial

from twisted.internet.interfaces import IListeningPort

from matrix.http import ServerFactory
from matrix.metrics import Registry, series
from matrix.net import Admission, Arrivals, NativeServerEndpoint
from matrix.router.engine import Engine

HANDSHAKE_SHARE = 2
"""Handshakes in progress may be one out of so many connections."""


LIMITS = (
    "head-time",
    "body-silence",
    "client-silence",
    "keep-alive",
    "first-byte",
    "machine-silence",
    "stream-silence",
)
"""The limits of time behind the handshake, as the access log's C{close} names them too."""


class Entrance:
    """Opens listeners whose connections and handshakes are bounded together."""

    def __init__(self, engine: Engine, tls: ssl.SSLContext | None, factory: ServerFactory) -> None:
        """@param tls: the listeners' context; C{None} for plain ones."""
        settings, counters, files = engine.settings, engine.counters, engine.files.clients
        self._loop = engine.loop
        self._tls = tls
        self._factory = factory
        self._handshake_timeout = settings.handshake_timeout
        self._admission = Admission(
            files,
            settings.max_connections,
            settings.max_connections_per_address,
            lambda: counters.open,
            exempt=factory.proxies.__contains__,
        )
        most = min(files, settings.max_connections or files)
        self._arrivals = Arrivals(most // HANDSHAKE_SHARE)
        self._expose(engine.registry)
        self._expose_timeouts(engine.registry, factory.timeouts, counters.timeouts)

    async def open(self, listener: socket.socket) -> IListeningPort:
        """Accept connections."""
        return await NativeServerEndpoint(
            self._loop,
            listener,
            self._tls,
            self._handshake_timeout,
            self._admission,
            self._arrivals,
        ).listen(self._factory)

    def _expose(self, registry: Registry) -> None:
        admission, arrivals = self._admission, self._arrivals
        for verdict in ("admitted", "refused", "cut"):
            registry.watch(series.CONNECTIONS, partial(getattr, admission, verdict), verdict)
        registry.watch(series.HANDSHAKES, lambda: arrivals.in_progress)
        for reason in ("timeout", "protocol", "gone", "silent", "error"):
            failed = partial(arrivals.failed.__getitem__, reason)
            registry.watch(series.HANDSHAKES_FAILED, failed, reason)
        for short in ("files", "handshakes"):
            pauses = partial(arrivals.pauses.__getitem__, short)
            registry.watch(series.ACCEPT_PAUSES, pauses, short)

    def _expose_timeouts(
        self, registry: Registry, clients: Counter[str], machines: Counter[str]
    ) -> None:
        failed = self._arrivals.failed
        registry.watch(series.TIMEOUTS, lambda: failed["timeout"], "handshake")
        for limit in LIMITS:
            registry.watch(series.TIMEOUTS, partial(_sum, clients, machines, limit), limit)


def _sum(clients: Counter[str], machines: Counter[str], limit: str) -> int:
    return clients[limit] + machines[limit]
