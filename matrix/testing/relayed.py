"""A proxy without sockets: a client on one side, a machine on the other, both in the test."""

from __future__ import annotations

from typing import Any

from matrix.http import Backend, Counters, Exchange, HeaderRules, Limits, Relay
from matrix.testing.served import Served
from matrix.testing.transport import FakeEndpoint, FakeTransport

EXTRA = b"X-Matrix-User: u\r\nAuthorization: Bearer daemon\r\n"
"""What the door adds to each request."""
NOTE = b"Server-Timing: total;dur=1\r\n"
"""What the door adds to each answer."""
IDLE_TIME = 30.0
"""Seconds that an unused connection to the machine is kept."""


class Relayed(Served):
    """
    A server that relays every request to one machine.

    The machine's connections are in C{endpoint.made}; those who found nobody there, in
    C{unreachable}.
    """

    def __init__(self, limits: Limits | None = None, passive: bool = False) -> None:
        super().__init__(self.relay, limits)
        self.endpoint = FakeEndpoint()
        self.counters = Counters()
        self.backend = Backend(self.endpoint, self.wheel, self.limits, self.counters, IDLE_TIME)
        self.relays: list[Relay] = []
        self.unreachable: list[Exception] = []
        self._rules = HeaderRules({}, lambda cookie: True)
        self._passive = passive

    def relay(self, exchange: Exchange) -> None:
        """Relay one request: the server's handler."""
        relay = Relay(
            exchange,
            self.backend,
            self._rules,
            EXTRA,
            lambda _: NOTE,
            self._not_there,
            passive=self._passive,
        )
        self.relays.append(relay)
        relay.start()

    def _not_there(self, relay: Relay, error: Exception) -> None:
        self.unreachable.append(error)

    @property
    def machine(self) -> FakeTransport:
        """The newest connection to the machine."""
        return self.endpoint.made[-1]

    def ask(self, *data: bytes, **options: Any) -> tuple[FakeTransport, FakeTransport]:
        """A client that sends C{data}, and the machine's connection that it reached."""
        client = self.connect(*data, **options)
        return client, self.machine

    def warm(self) -> FakeTransport:
        """Leave one idle connection to the machine behind, after one whole request."""
        client, machine = self.ask(b"GET /warm HTTP/1.1\r\nHost: h\r\n\r\n")
        machine.receive(b"HTTP/1.1 204 No Content\r\n\r\n")
        machine.take()
        client.lose()
        return machine
