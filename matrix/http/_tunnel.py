"""The upgrade tunnel: a WebSocket joined end to end, its frames followed but not touched."""

from __future__ import annotations

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
    BAD_GATEWAY,
    SERVICE_RESTART,
    FrameFollower,
    accept_key,
    close_frame,
)

CLOSE_TIMEOUT = 2.0
"""Seconds for either side to take a close frame of ours, and for the client to answer it
(RFC 6455 section 7.1.1)."""


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
        self._exchange = exchange
        self._upstream = upstream
        self._backend = backend
        self._from_client = FrameFollower()
        self._from_machine = FrameFollower()
        self._client: Any = None
        self._closing = False

    def makeConnection(self, transport: Any) -> None:
        """Join the two, back-pressure included."""
        self._client = transport
        machine = self._upstream.transport
        self._upstream.work = self
        self._backend.streams.add(self)
        machine.resumeProducing()
        self._exchange.register_producer(machine)
        machine.registerProducer(self._exchange, True)

    def connectionMade(self) -> None:
        """The connection was made long ago, by HTTP."""

    def begin(self, rest: bytes) -> None:
        """Go on with what the machine sent right behind its 101."""
        self._upstream.arm(self._backend.limits.stream_silence)
        if rest:
            self.response_data(rest)

    # from the client: IProtocol

    def dataReceived(self, data: bytes) -> None:
        self._exchange.body_bytes += len(data)
        if self._from_client.feed(data):
            self._backend.used_at = self._backend.wheel.now
        if self._closing:
            if self._from_client.closing:
                self._end_client(CLOSE_TIMEOUT)
            return
        self._upstream.send(data)
        self._upstream.arm(self._backend.limits.stream_silence)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # type: ignore[no-untyped-call]  # noqa: B008
        self._backend.streams.discard(self)
        self._drop_machine()
        if self._client.paused:  # it does not take what it has, so that it would take long
            self._upstream.transport.abortConnection()

    # from the machine: Work

    def response_data(self, data: bytes) -> None:
        self._exchange.bytes_out += len(data)
        if self._from_machine.feed(data):
            self._backend.used_at = self._backend.wheel.now
        self._client.write(data)
        self._upstream.arm(self._backend.limits.stream_silence)

    def upstream_lost(self) -> None:
        """The machine's end is gone: after its close frame that is proper, else we say so."""
        self._backend.streams.discard(self)
        if self._from_machine.closing:
            self._end_client(self._backend.limits.body_silence)
        else:
            self._close_client(BAD_GATEWAY, "The machine closed the connection.")

    def upstream_silent(self) -> None:
        self._exchange.close_reason = "silent"
        self._drop_machine()
        self._client.abortConnection()

    # our own end

    def drain(self, reason: str) -> None:
        """The machine goes to sleep: tell both sides."""
        self._exchange.close_reason = reason
        self._backend.streams.discard(self)
        self._close_client(SERVICE_RESTART, reason)
        upstream = self._upstream
        if self._from_client.at_boundary and not self._from_client.closing:
            upstream.send(close_frame(SERVICE_RESTART, reason, masked=True))
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
            self._limit_client(CLOSE_TIMEOUT)

    def _end_client(self, seconds: float) -> None:
        """Close once everything is sent; a client that does not read it is not waited for."""
        self._client.loseConnection()
        self._limit_client(seconds)

    def _limit_client(self, seconds: float) -> None:
        self._backend.wheel.arm(_ClientLimit(self._client), seconds)

    def _drop_machine(self) -> None:
        upstream = self._upstream
        upstream.work = None
        upstream.transport.unregisterProducer()
        upstream.transport.loseConnection()
        upstream.arm(CLOSE_TIMEOUT)


class _ClientLimit:
    """Ends a client that does not answer a close frame, or not even read it."""

    def __init__(self, transport: Any) -> None:
        self.deadline = inf
        self.wheel_slot = 0
        self._transport = transport

    def expired(self) -> None:
        self._transport.abortConnection()
