"""Thin adapters that let Twisted protocols run on the event loop's native transports."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from matrix.errors import MatrixError
from matrix.net._presence import presence
from matrix.net.interfaces import Presence

WRITE_HIGH_WATER = 64 * 1024
"""Unsent bytes above which the producer is paused: the back-pressure bound of the data path."""

READ_MAX = 48 * 1024
"""Bytes taken at once from a client's socket. With the 16 KiB that may be there already
(L{matrix.http.Limits.ahead}) it is 64 KiB that are held for a machine that still wakes."""

ARRIVED = memoryview(bytearray(READ_MAX))
"""Where they arrive: they are handed on before anything else is read, so one serves all."""

_NO_LINGER = struct.pack("ii", 1, 0)
"""C{struct linger}: a close sends a reset, since a plain end would pass for a proper one."""

_DONE = Failure(ConnectionDone())  # type: ignore[no-untyped-call]


def _unconnected(data: bytes) -> None:
    raise RuntimeError("not connected yet")


def _lost(data: bytes) -> None:
    """Nobody takes it any more."""


class _Gone(asyncio.Transport):
    """Stands in for the loop's transport of a connection that was lost."""

    def abort(self) -> None:
        """That is done already."""


_GONE = _Gone()


class Adapter(asyncio.BaseProtocol):
    """What every connection is: an asyncio protocol towards the loop, a Twisted transport
    towards the protocol."""

    write: Callable[[bytes], None]
    """Send bytes; what cannot be sent yet is kept, see L{registerProducer}."""

    refusal: MatrixError | None = None
    """Why the protocol must end the connection as soon as it has told its peer so."""

    left: Callable[[], None] | None = None
    """Called when the connection is gone."""

    _native: asyncio.Transport = _GONE
    """The loop's transport, while there is one."""

    def __init__(self, protocol: IProtocol) -> None:
        self.protocol = protocol
        self.disconnecting = False
        self._producer: Any = None
        self.paused = False
        self._full = False
        self._aborted = False

    # towards the loop

    def attach(self, transport: asyncio.BaseTransport) -> None:
        """The loop's transport is there."""
        self._native = native = cast(asyncio.Transport, transport)
        native.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    def ended(self) -> bool:
        """Tell the protocol that the peer sends no more; whether it wants to answer still."""
        half_closed = getattr(self.protocol, "readConnectionLost", None)
        return half_closed is not None and bool(half_closed())

    def lose(self, exc: Exception | None) -> None:
        """Tell the protocol that the connection is gone."""
        self.disconnecting = True
        self._producer = None
        if self.left is not None:
            self.left()
        if self._aborted:
            reason = Failure(ConnectionAborted())  # type: ignore[no-untyped-call]
        elif exc is None:
            reason = _DONE
        else:
            reason = Failure(ConnectionLost(str(exc)))  # type: ignore[no-untyped-call]
        self.protocol.connectionLost(reason)
        # The protocol, we and the loop's buffers, some hundred kilobytes, go at once, and not
        # when the garbage collector finds that each refers to the other.
        self._native = _GONE
        self.write = _lost
        del self.protocol

    def pause_writing(self) -> None:
        self._full = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume_writing(self) -> None:
        self._full = False
        if self._producer is not None:
            self._producer.resumeProducing()

    # towards the protocol: ITransport

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self, reason: Failure | None = None) -> None:
        """Close once everything written is sent."""
        if not self.disconnecting:
            self.disconnecting = True
            self._native.close()

    def loseWriteConnection(self) -> None:
        """Send no more once everything written is sent; the peer is still read."""
        if not self.disconnecting:
            self._native.write_eof()

    def abortConnection(self) -> None:
        """Close now; what is unsent is lost, and the peer can tell."""
        if not self._aborted:
            _reset_on_close(self._native)
        self.disconnecting = True
        self._aborted = True
        self._native.abort()

    def getPeer(self) -> Any:
        """The peer's address as the socket gives it: C{(host, port, ...)}, or a path."""
        return self._native.get_extra_info("peername")

    def getHost(self) -> Any:
        """Our own address, in the same form."""
        return self._native.get_extra_info("sockname")

    def tls_version(self) -> str:
        """C{TLSv1.3} and so on; empty on a plain connection."""
        return ""

    # towards the protocol: flow control

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause C{producer} (an L{IPushProducer}) while more than 64 KiB are unsent."""
        if not streaming:
            raise ValueError("only push producers: the loop tells us when to pause")
        self._producer = producer
        if self._full:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        """Read no more for now."""
        if not self.paused and not self.disconnecting:
            self.paused = True
            self._native.pause_reading()

    def resumeProducing(self) -> None:
        if self.paused and not self.disconnecting:
            self.paused = False
            self._native.resume_reading()

    def stopProducing(self) -> None:
        self.loseConnection()

    # while nobody reads

    def presence(self) -> Presence:
        """Whether the peer is there, also while reading is paused."""
        place = self._native.get_extra_info("socket")
        descriptor = -1 if place is None else place.fileno()
        return Presence.GONE if descriptor < 0 else presence(descriptor)


@implementer(ITransport, IPushProducer)
class NativeTransport(Adapter):
    """
    A plain connection.

    C{data_received} is the protocol's own C{dataReceived} and C{write} the loop's own
    C{write}, so the adapter costs nothing per read or write.
    """

    def __init__(self, protocol: IProtocol) -> None:
        super().__init__(protocol)
        self.data_received = protocol.dataReceived
        self.write = _unconnected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(transport)
        self.write = self._native.write
        self.protocol.makeConnection(self)

    def eof_received(self) -> bool:
        """Keep the connection half-open if the protocol wants to answer still."""
        return self.ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(exc)
        # The loop may keep this object a little longer; the protocol need not wait for it.
        del self.data_received

    def forsaken(self) -> None:
        """Whoever connected has given up. If that was when the connection was there already,
        the loop has closed it, and tells nobody."""
        if self._native is not _GONE:
            self.connection_lost(None)


@implementer(ITransport, IPushProducer)
class BoundedTransport(Adapter):
    """
    A plain connection of a client, of which no more than L{READ_MAX} is read at once.

    The loop's own reads bring up to 250 KiB, which are more than may be held for a machine
    that does not take them yet. This costs some 2,300 instructions a read.
    """

    def __init__(self, protocol: IProtocol) -> None:
        super().__init__(protocol)
        self.write = _unconnected
        self._receive = protocol.dataReceived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(transport)
        self.write = self._native.write
        self.protocol.makeConnection(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return ARRIVED

    def buffer_updated(self, nbytes: int) -> None:
        self._receive(ARRIVED[:nbytes].tobytes())

    def eof_received(self) -> bool:
        """Keep the connection half-open if the protocol wants to answer still."""
        return self.ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(exc)
        del self._receive


def _reset_on_close(transport: asyncio.Transport) -> None:
    place: Any = transport.get_extra_info("socket")
    if place is not None and place.family != socket.AF_UNIX:
        with suppress(OSError, ValueError):  # it is gone already
            place.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
