"""The upgrade tunnel: a WebSocket joined end to end, its frames followed but not touched."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from matrix.errors import BadGateway
from matrix.http._exchange import Exchange
from matrix.http._fields import Fields
from matrix.http._heads import RequestHead
from matrix.http._upstream import Backend, Upstream
from matrix.http._websocket import (
    SERVICE_RESTART,
    FrameFollower,
    accept_key,
    close_frame,
)

CLOSE_TIMEOUT = 2.0
"""Seconds for either side to take a close frame of ours, and for the client to answer it
(RFC 6455 section 7.1.1)."""

ANSWER_TIMEOUT = 0.25
"""Seconds for a client to answer a close frame behind which the machine half-closed its
connection: enough for a round trip, and no more, since over TLS the loop cannot tell the
client that nothing will follow without ending both directions."""


def check_upgrade(request: RequestHead, fields: Fields) -> None:
    """
    Whether a 101 is a proper answer (RFC 6455 section 4.1).

    @raise BadGateway: it is not.
    """
    key = request.get(b"sec-websocket-key") or b""
    if (
        fields.upgrade != b"websocket"
        or b"upgrade" not in fields.connection
        or fields.get(b"sec-websocket-accept") != accept_key(key)
    ):
        raise BadGateway("The machine's WebSocket handshake is malformed.", reason="upgrade")


@implementer(IProtocol)
class Tunnel:
    """
    Joins a client and a machine after a 101.

    Towards the client's connection it is the protocol it was handed over to, towards the
    upstream connection its work. Only silence is limited from here on.
    """

    kind = "websocket"

    def __init__(self, exchange: Exchange, upstream: Upstream, backend: Backend) -> None:
        self.exchange = exchange
        self._upstream = upstream
        self._backend = backend
        self._from_client = FrameFollower()
        self._from_machine = FrameFollower()
        self._client: Any = None
        self._heard_at = backend.wheel.now
        """When either side last sent something, by the wheel's clock."""
        self._closing = False
        """Whether what the client sends goes nowhere any more."""
        self._owed = False
        """Whether the machine only waits for the answer to its close frame."""

    def makeConnection(self, transport: Any) -> None:
        """Join the two, back-pressure included."""
        self._client = transport
        machine = self._upstream.transport
        self._upstream.work = self
        self._backend.begin_stream(self)
        machine.resumeProducing()
        self.exchange.register_producer(machine)
        machine.registerProducer(self.exchange, True)

    def connectionMade(self) -> None:
        """The connection was made long ago, by HTTP."""

    def begin(self, rest: bytes) -> None:
        """Go on with what the machine sent right behind its 101."""
        self._upstream.arm(self._backend.limits.stream_silence)
        if rest:
            self.response_data(rest)

    # from the client: IProtocol

    def dataReceived(self, data: bytes) -> None:
        self.exchange.body_bytes += len(data)
        self._heard_at = now = self._backend.wheel.now
        if self._from_client.feed(data):
            self._backend.used_at = now
        if self._closing:
            if self._from_client.closing:
                self._end_client(CLOSE_TIMEOUT)
            return
        self._upstream.send(data)
        if self._owed and self._from_client.closing and self._from_client.at_boundary:
            self._answered()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # type: ignore[no-untyped-call]  # noqa: B008
        self._backend.end_stream(self)
        if not self._closing:
            self._drop_machine()
        if self._client.paused:  # it does not take what it has, so that it would take long
            self._upstream.transport.abortConnection()

    # from the machine: Work

    def response_data(self, data: bytes) -> None:
        self.exchange.bytes_out += len(data)
        self._heard_at = now = self._backend.wheel.now
        if self._from_machine.feed(data):
            self._backend.used_at = now
        self._client.write(data)

    def upstream_ended(self) -> bool:
        """The machine sends no more; whether it may still wait to be sent something."""
        if self._closing or self._from_client.closing or not self._from_machine.closing:
            return False
        self._owed = True
        self._after(ANSWER_TIMEOUT, self._answered)
        return True

    def _answered(self) -> None:
        """The machine has the answer to its close frame, or will not get one."""
        if not self._closing:
            self._drop_machine()
            self.upstream_lost()

    def upstream_lost(self) -> None:
        """
        The machine's end is gone, and so is the client's once it has what was sent before:
        with a close frame in it or without, in the middle of a frame or not. Whatever a
        client makes of that it would make of it without us.
        """
        self._backend.end_stream(self)
        self._closing = True
        self._end_client(self._backend.limits.body_silence)

    def upstream_silent(self) -> None:
        # Messages only note their time: moving the deadline for each would cost more.
        limit, now = self._backend.limits.stream_silence, self._backend.wheel.now
        if now - self._heard_at < limit:
            self._upstream.arm(limit - (now - self._heard_at))
            return
        self._backend.counters.timeouts["stream-silence"] += 1
        self.exchange.close_reason = "stream-silence"
        self._closing = True
        self._drop_machine()
        self._client.abortConnection()

    # our own end

    def drain(self, reason: str, code: int = SERVICE_RESTART) -> None:
        """See L{Stream.drain}; the machine is told the same."""
        self.exchange.close_reason = reason
        self._backend.end_stream(self)
        self._close_client(code, reason)
        upstream = self._upstream
        if self._from_client.at_boundary and not self._from_client.closing:
            upstream.send(close_frame(code, reason, masked=True))
        self._drop_machine()

    def _close_client(self, code: int, reason: str) -> None:
        """Send a close frame where one fits, and give the client a moment to answer it."""
        if self._closing:
            return
        self._closing = True
        if not self._from_machine.at_boundary:
            self._client.abortConnection()
        elif self._from_machine.closing:
            self._end_client(CLOSE_TIMEOUT)
        else:
            self._client.write(close_frame(code, reason))
            self._client.resumeProducing()
            self._after(CLOSE_TIMEOUT, self._client.abortConnection)

    def _end_client(self, seconds: float) -> None:
        """Close once everything is sent; a client that does not read it is not waited for."""
        self._client.loseConnection()
        self._after(seconds, self._client.abortConnection)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._backend.wheel.arm(_Later(action), seconds)

    def _drop_machine(self) -> None:
        upstream = self._upstream
        upstream.work = None
        upstream.transport.unregisterProducer()
        upstream.transport.loseConnection()
        upstream.arm(CLOSE_TIMEOUT)


class _Later:
    """What happens to a side that does not do its part of closing in time."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.deadline = inf
        self.wheel_due = inf
        self.expired = action
