"""The machine's side: connections to one boot of one machine, kept and reused."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Any
from typing import Protocol as Shape

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from matrix.errors import BadGateway, GatewayTimeout
from matrix.http._limits import Limits
from matrix.http._reader import ResponseReader
from matrix.http._websocket import SERVICE_RESTART
from matrix.net.interfaces import IWheel

if TYPE_CHECKING:
    from matrix.http._exchange import Exchange

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection on the mesh or this machine; longer means that nobody is there."""


class Work(Shape):
    """What an upstream connection is busy with: a relay or a tunnel."""

    def response_data(self, data: bytes) -> None:
        """Bytes from the machine."""

    def upstream_ended(self) -> bool:
        """The machine sends no more; whether it may still be sent something, instead of the
        connection being closed."""

    def upstream_lost(self) -> None:
        """The connection is gone."""

    def upstream_silent(self) -> None:
        """The deadline that was armed on the connection has passed."""


class Stream(Shape):
    """An event stream or a WebSocket under way: a relay or a tunnel."""

    kind: str
    """C{sse} or C{websocket}."""
    exchange: Exchange
    """The request that it is the answer to."""

    def drain(self, reason: str, code: int = SERVICE_RESTART) -> None:
        """
        End it properly.

        @param reason: for the access log, and for the client of a WebSocket.
        @param code: what a WebSocket is closed with.
        """


class Keeper(Shape):
    """Told of streams; see L{Backend}."""

    def begun(self, stream: Stream) -> None:
        """It goes on from here, and must not be ended before this returns."""

    def ended(self, stream: Stream) -> None:
        """It is over, whichever way. Called once."""


class Counters:
    """What happened towards machines, in this process; read by the metrics."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "connected",
        "failed",
        "open",
        "retried",
        "reused",
        "timeouts",
    )

    def __init__(self) -> None:
        self.bytes_in = 0
        """From machines; heads and framing included, as in C{bytes_out}."""
        self.bytes_out = 0
        self.connected = 0
        self.failed = 0
        self.open = 0
        """How many connections are open now."""
        self.retried = 0
        self.reused = 0
        self.timeouts: Counter[str] = Counter()
        """How often time ran out for a machine, by limit."""


class Upstream(Protocol):
    """One connection to a machine; serves one request at a time."""

    transport: Any

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.reader = ResponseReader(backend.limits)
        self.work: Work | None = None
        self.deadline = inf
        self.wheel_due = inf
        self._reset = False

    def connectionMade(self) -> None:
        self.backend.counters.open += 1

    def send(self, data: bytes) -> None:
        """Write to the machine."""
        self.backend.counters.bytes_out += len(data)
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.backend.counters.bytes_in += len(data)
        work = self.work
        if work is not None:
            work.response_data(data)
        else:
            # An answer to nothing would be taken for the next request's: a poisoned socket.
            self.transport.abortConnection()

    def arm(self, seconds: float) -> None:
        """Let the machine be silent for so long."""
        self.backend.wheel.arm(self, seconds)

    def expired(self) -> None:
        if self.transport.disconnecting:
            self.transport.abortConnection()  # the machine does not take what is unsent
        elif self.work is None:
            self.transport.loseConnection()
        elif self.transport.paused:
            self.arm(self.backend.limits.body_silence)  # it is us who do not read
        else:
            self.work.upstream_silent()

    def readConnectionLost(self) -> bool:
        """The machine sends no more; whether the work still has something for it."""
        return self.work is not None and self.work.upstream_ended()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # type: ignore[no-untyped-call]  # noqa: B008
        self.deadline = inf
        self.backend.counters.open -= 1
        self._reset = not isinstance(reason.value, ConnectionDone)
        self.backend.forget(self)
        work, self.work = self.work, None
        if work is not None:
            work.upstream_lost()

    def closed(self) -> None:
        """
        The connection is gone in the middle of an answer: nothing, if its end was to tell
        where the answer ends.

        @raise BadGateway: the answer is cut short.
        """
        if self._reset:
            raise BadGateway("The machine's connection broke.", reason="reset")
        self.reader.closed()


class _UpstreamFactory(Factory):
    noisy = False

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def buildProtocol(self, addr: IAddress | None) -> Upstream:
        return Upstream(self._backend)


class Backend:
    """
    The connections to one boot of one machine, and the work that is under way on them.

    A suspended machine's connections look alive and are dead, so a backend is closed with
    its boot or suspend and never used again.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        wheel: IWheel,
        limits: Limits,
        counters: Counters,
        idle_time: float,
        keeper: Keeper | None = None,
    ) -> None:
        """
        @param idle_time: seconds an unused connection is kept; below the machine's own
            keep-alive time, or requests race its close.
        @param keeper: told of each stream's begin and end.
        """
        self.wheel = wheel
        self.limits = limits
        self.counters = counters
        self.used_at = wheel.now
        """When the machine was last in use, by the wheel's clock."""
        self.requests = 0
        """Requests under way, streams not counted: while there are any it is in use."""
        self.streams: set[Stream] = set()
        """Event streams and WebSockets under way."""
        self.closed = False
        self._keeper = keeper
        self._endpoint = endpoint
        self._factory = _UpstreamFactory(self)
        self._idle_time = idle_time
        self._idle: list[Upstream] = []

    def take(self) -> Upstream | None:
        """An idle connection, the most recently used first."""
        while self._idle:
            upstream = self._idle.pop()
            upstream.deadline = inf
            if not upstream.transport.disconnecting:
                self.counters.reused += 1
                return upstream
        return None

    def put(self, upstream: Upstream) -> None:
        """Keep a connection whose answer is complete for the next request, if it can be."""
        upstream.work = None
        if self.closed or not upstream.reader.keeps_alive:
            upstream.transport.loseConnection()
            return
        upstream.transport.resumeProducing()
        upstream.arm(self._idle_time)
        self._idle.append(upstream)

    async def connect(self, counters: Counters | None = None) -> Upstream:
        """
        A new connection.

        @param counters: where to count it; by default with those made for requests.
        @raise OSError: refused, or nobody there.
        @raise GatewayTimeout: no answer within L{CONNECT_TIMEOUT}.
        """
        counters = counters or self.counters
        attempt: Any = self._endpoint.connect(self._factory)
        limit = _ConnectLimit(attempt)
        self.wheel.arm(limit, CONNECT_TIMEOUT)
        try:
            upstream: Upstream = await attempt
        except BaseException:
            counters.failed += 1
            if limit.passed:
                raise GatewayTimeout("The machine accepts no connection.") from None
            raise
        finally:
            limit.deadline = inf
        counters.connected += 1
        return upstream

    def forget(self, upstream: Upstream) -> None:
        """The connection is gone."""
        if upstream in self._idle:
            self._idle.remove(upstream)

    def begin_stream(self, stream: Stream) -> None:
        """A request has become a stream."""
        self.streams.add(stream)
        stream.exchange.stream = stream
        if self._keeper is not None:
            self._keeper.begun(stream)

    def end_stream(self, stream: Stream) -> None:
        """A stream is over; nothing happens if that is known."""
        if stream in self.streams:
            self.streams.discard(stream)
            stream.exchange.stream = None
            if self._keeper is not None:
                self._keeper.ended(stream)

    def drain(self, reason: str, code: int = SERVICE_RESTART) -> None:
        """End the streams properly: the machine goes to sleep or away."""
        for stream in list(self.streams):
            stream.drain(reason, code)

    def close(self) -> None:
        """Use no connection again; what is under way goes on."""
        self.closed = True
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.transport.abortConnection()


class _ConnectLimit:
    """Cancels a connection attempt that takes too long."""

    def __init__(self, attempt: Deferred[Any]) -> None:
        self.deadline = inf
        self.wheel_due = inf
        self.passed = False
        self._attempt = attempt

    def expired(self) -> None:
        self.passed = True
        self._attempt.cancel()
