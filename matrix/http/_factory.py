"""A listener's connections: what they share, and how they are told to end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from itertools import count

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from matrix.errors import MatrixError
from matrix.http._exchange import Exchange
from matrix.http._forwarded import NOBODY, ForwardedExchange, TrustedProxies
from matrix.http._hold import Hold
from matrix.http._limits import Limits
from matrix.http._server import ServerConnection
from matrix.http.problem import Answer, problem
from matrix.net.interfaces import IWheel

HELD_BYTES = 64 * 1024 * 1024
"""Of bodies whose machines are still waking, per process (DESIGN: HTTP rules)."""

Render = Callable[[MatrixError, Exchange], Answer]
"""How an error is shown to the sender of the exchange's request."""


def render_problem(error: MatrixError, exchange: Exchange) -> Answer:
    """The plain way: problem+json."""
    return problem(error, exchange.request_id)


class ServerFactory(Factory):
    """Makes the connections of one listener, and knows those that are open."""

    noisy = False

    def __init__(
        self,
        handler: Callable[[Exchange], None],
        wheel: IWheel,
        limits: Limits | None = None,
        render: Render = render_problem,
        finished: Callable[[Exchange], None] | None = None,
        hold: Hold | None = None,
        proxies: TrustedProxies = NOBODY,
    ) -> None:
        """
        @param finished: told of each exchange once it is over, for log and metrics; a
            client that left early shows as status 499.
        @param hold: bounds what is kept of bodies that nobody reads yet.
        @param proxies: whose word on where a request came from is taken.
        """
        self.handler = handler
        self.wheel = wheel
        self.limits = limits or Limits()
        self.render = render
        self.finished = finished
        self.hold = hold or Hold(HELD_BYTES)
        self.proxies = proxies
        self.timeouts: Counter[str] = Counter()
        """How often time ran out for a client, by limit."""
        self.connections: set[ServerConnection] = set()
        self.draining = False
        # Unique among processes and restarts without asking the kernel for each request.
        self._id_prefix = os.urandom(6).hex()
        self._ids = count(1)

    def buildProtocol(self, addr: IAddress | None) -> ServerConnection:
        return ServerConnection(self)

    def exchanges(self) -> list[Exchange]:
        """All that are under way, streams included."""
        return [one.exchange for one in self.connections if one.exchange is not None]

    def exchange_type(self, peer: str) -> type[Exchange]:
        """What each request of a peer's connection becomes."""
        return ForwardedExchange if peer in self.proxies else Exchange

    def late(self, limit: str) -> str:
        """Count that time ran out for a client; the limit's name."""
        self.timeouts[limit] += 1
        return limit

    def next_id(self) -> str:
        """A request id that no other request has."""
        return f"{self._id_prefix}-{next(self._ids):x}"

    def drain(self) -> None:
        """Close what is idle; the rest after its present answer."""
        self.draining = True
        for connection in list(self.connections):
            connection.close_if_idle()
