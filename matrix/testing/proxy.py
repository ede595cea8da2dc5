"""A whole proxy over real sockets: a listener, with TLS or without, before one machine."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.interfaces import IListeningPort

from matrix.errors import BadGateway
from matrix.http import (
    Backend,
    Counters,
    Exchange,
    HeaderRules,
    Limits,
    Relay,
    ServerFactory,
)
from matrix.model import Address
from matrix.net import NativeClientEndpoint, NativeServerEndpoint, Wheel, bind, event_loop


class Proxy:
    """Relays everything to one machine; C{over} gathers the exchanges that are over."""

    def __init__(self, reactor: Any, machine: Address, limits: Limits | None = None) -> None:
        self._loop = event_loop(reactor)
        self.wheel = Wheel(reactor)
        self.limits = limits or Limits()
        endpoint = NativeClientEndpoint(self._loop, machine)
        self.backend = Backend(endpoint, self.wheel, self.limits, Counters(), 30)
        self.over: list[Exchange] = []
        self.factory = ServerFactory(
            self._relay, self.wheel, self.limits, finished=self.over.append
        )
        self.port = 0
        self._rules = HeaderRules({}, lambda cookie: True)
        self._ports: list[IListeningPort] = []

    async def listen(self, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        """Listen on a port of 127.0.0.1 that is free: C{port}."""
        (listener,) = bind(Address(host="127.0.0.1", port=0))
        self.port = listener.getsockname()[1]
        endpoint = NativeServerEndpoint(self._loop, listener, tls, **options)
        self._ports.append(await endpoint.listen(self.factory))
        self.wheel.start()

    async def close(self) -> None:
        """Close the listener and every connection."""
        for port in self._ports:
            port.stopListening()
        for connection in list(self.factory.connections):
            connection.abort()
        self.backend.close()
        self.wheel.stop()

    def _relay(self, exchange: Exchange) -> None:
        Relay(
            exchange,
            self.backend,
            self._rules,
            b"X-Matrix-User: u\r\n",
            lambda _: b"",
            lambda _, error: exchange.fail(BadGateway(str(error), reason="refused")),
        ).start()
