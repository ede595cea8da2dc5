"""
The core in a closed box: keep-alive requests through parser, front, relay and back, no sockets.

Run by L{bench.core} under valgrind: C{python -m bench.core_loop REQUESTS}. The parts are those of
the daemon, put together as it does; only transports, clock, token check and log are stand-ins.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet import task
from twisted.internet.address import IPv4Address

from matrix.auth import Failures, Origins, Places
from matrix.http import Backend, Counters, Limits, ServerFactory, render_problem
from matrix.http._upstream import Upstream
from matrix.metrics import process_registry
from matrix.model import Principal, UserId
from matrix.net import Wheel
from matrix.router.accessline import Record, format_record
from matrix.router.bearings import Compass
from matrix.router.front import Bounds, Front
from matrix.router.ledger import Ledger
from matrix.router.pages import Pages
from matrix.router.routes import RouteTable
from matrix.router.tickets import Tickets
from matrix.router.validate import Validator

WARM_REQUESTS = 50
"""Enough for every cache to be filled and for the interpreter to have specialised the code."""

USER = UserId("59084fbf-8a90-563e-a019-2cbba321df72")
TOKEN = b"a" * 700
"""As long as Supabase's."""

TARGET = b"/foo/bar?x=1"
REQUEST = (
    b"GET "
    + TARGET
    + b" HTTP/1.1\r\nHost: localhost:8443\r\nAuthorization: Bearer "
    + TOKEN
    + b"\r\n"
    b"User-Agent: curl/8.0\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\n\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Mon, 23 Nov 2026 14:00:00 GMT\r\n"
    b"Server: bench\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024
)


class Transport:
    """A socket that takes everything."""

    disconnecting = False
    paused = False

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 40000)

    def tls_version(self) -> str:
        return "TLSv1.3"

    def registerProducer(self, producer: object, streaming: bool) -> None:
        return

    def unregisterProducer(self) -> None:
        return

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def loseConnection(self) -> None:
        self.disconnecting = True

    abortConnection = loseConnection


class Gate:
    """Knows one token, as the gate's cache does from the second request on."""

    def __init__(self) -> None:
        self._known = {TOKEN: Principal(USER, "session", 1e12, "")}
        self.recall = self._known.get
        self.verify = None


class Log:
    """An access log that is not written."""

    def __init__(self) -> None:
        self.bytes = 0

    def add(self, records: Iterable[Record]) -> None:
        self.bytes += sum(map(len, map(format_record, records)))


class Directory:
    """One that is never out of date."""

    def stale_since(self) -> None:
        return None


def build() -> Callable[[int], None]:
    """@return: what passes so many requests through."""
    nothing: Any = None
    clock, limits, registry, routes = task.Clock(), Limits(), process_registry(), RouteTable()
    wheel, log, gate, directory = Wheel(clock), Log(), Gate(), Directory()
    compass = Compass(Places(), Origins())
    route = routes.ensure(USER, nothing)
    route.identity = b"X-Matrix-User: %b\r\nAuthorization: Bearer %b\r\n" % (
        USER.encode(),
        b"z" * 43,
    )
    route.backend = backend = Backend(nothing, wheel, limits, Counters(), 4.0)
    machine: Any = Transport()
    upstream = Upstream(backend)
    upstream.makeConnection(machine)  # type: ignore[no-untyped-call]
    backend.put(upstream)
    front = Front(
        clock,
        Validator(
            gate,  # type: ignore[arg-type]
            registry,
            Failures(300, clock.seconds),
            nothing,
            compass,
            Tickets(nothing),
        ),
        routes,
        nothing,
        compass,
        nothing,
        Pages(),
        directory,  # type: ignore[arg-type]
        registry,
        Bounds(),
    )
    ledger = Ledger(registry, log, wheel)  # type: ignore[arg-type]
    factory = ServerFactory(front, wheel, limits, render_problem, ledger.finished)
    connection: Any = factory.buildProtocol(nothing)
    client: Any = Transport()
    connection.makeConnection(client)

    def run(requests: int) -> None:
        before = log.bytes
        for _ in range(requests):
            connection.dataReceived(REQUEST)
            upstream.dataReceived(ANSWER)
            answered = client.written[0].startswith(b"HTTP/1.1 200 OK\r\n")
            if not answered or not machine.written[0].startswith(b"GET /foo/bar?x=1 HTTP/1.1"):
                raise SystemExit(f"not answered: {client.written!r}")
            client.written.clear()
            machine.written.clear()
        ledger.settle()
        if requests and log.bytes <= before + requests * len(TARGET):
            raise SystemExit("requests are missing in the access log")

    return run


if __name__ == "__main__":
    pass_through = build()
    pass_through(WARM_REQUESTS)
    pass_through(int(sys.argv[1]))
