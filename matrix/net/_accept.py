"""Listeners: connections are accepted by ourselves, counted from their first moment."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from matrix.model import peer_name
from matrix.net._admission import UNBOUNDED, Admission, Visit
from matrix.net._arrivals import Arrivals
from matrix.net._tls_transport import TlsTransport
from matrix.net._transport import Adapter, BoundedTransport

BATCH = 16
"""Connections accepted in one turn of the loop. Each is some 0.3 ms of handshake in the next:
those that are open already wait for 5 ms, not for a whole crowd."""

FULL_PAUSE = 0.02
"""Seconds for which nobody is accepted when too many handshakes are in progress."""

STARVED_PAUSE = 0.1
"""Seconds for which nobody is accepted when the kernel can give no file."""

COMPLAINT_INTERVAL = 60.0
"""Seconds between two complaints that nobody can be accepted."""

TELLING_TIMEOUT = 2.0
"""Seconds for the handshake of a client that is to be told to go: it holds a reserved file."""

_THE_CLIENTS = frozenset(
    (
        errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EINTR, errno.ENETDOWN,
        errno.ENETUNREACH, errno.ENONET, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPERM,
        errno.EPROTO,
    )
)  # fmt: skip
"""Errors of accept(2) that are about one connection: the next one is taken."""

_log = Logger()


class _Arrival:
    """A connection from its first moment until its handshake is done."""

    def __init__(self, port: NativePort, connection: socket.socket, visit: Visit) -> None:
        self.connection = connection
        self.visit = visit
        self._port = port
        self._given_up = ""
        self._over = False
        self.transport: Adapter | None = None
        self.attaching: asyncio.Task[Any] | None = None

    def give_up(self) -> None:
        """Close it: others want its place."""
        self._given_up = "silent"
        if self.attaching is not None and not self.attaching.done():
            self.attaching.cancel()
        elif self.transport is not None:
            self.transport.abortConnection()

    def shaken(self, transport: Adapter | None, failure: str) -> None:
        """The handshake is done, or came to nothing."""
        if self._over:
            return
        self._over = True
        self._port.arrived(self, self._given_up or failure)

    def attached(self, attaching: asyncio.Task[Any]) -> None:
        """The loop has made a transport of the connection, or failed."""
        error = None if attaching.cancelled() else attaching.exception()
        if error is None and not attaching.cancelled():
            return
        if error is not None and not isinstance(error, OSError):
            _log.failure("a connection could not be made", failure=Failure(error))  # type: ignore[no-untyped-call]
        self.shaken(None, "gone" if isinstance(error, OSError) else "error")
        self.connection.close()


@implementer(IListeningPort)
class NativePort:
    """
    A listening socket whose connections are accepted.

    The event loop's own servers tell of a TLS connection only when its handshake is done,
    and give up listening when the process is out of files.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        factory: IProtocolFactory,
        admission: Admission,
        arrivals: Arrivals,
        tls: ssl.SSLContext | None,
        handshake_timeout: float,
    ) -> None:
        """@param handshake_timeout: seconds."""
        self._loop = loop
        self._listener = listener
        self._factory = factory
        self._admission = admission
        self._arrivals = arrivals
        self._tls = tls
        self._handshake_timeout = handshake_timeout
        self._path = listener.getsockname() if listener.family == socket.AF_UNIX else None
        self._resuming: asyncio.TimerHandle | None = None
        self._complain_at = 0.0
        self._closed = False

    def getHost(self) -> Any:
        return self._listener.getsockname()

    def startListening(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._listener, self._readable)

    def stopListening(self) -> Deferred[None] | None:
        """Accept no more; connections that are open stay, and handshakes go on."""
        if self._closed:
            return None
        self._closed = True
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        if self._path:
            Path(self._path).unlink(missing_ok=True)
        return None

    # accepting

    def _readable(self) -> None:
        for _ in range(BATCH):
            if not self._arrivals.make_room():
                self._pause("handshakes", FULL_PAUSE)
                return
            try:
                connection, place = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _THE_CLIENTS:
                    self._starved(error)
                    return
            else:
                self._take(connection, peer_name(place))

    def _starved(self, error: OSError) -> None:
        self._pause("files", STARVED_PAUSE)
        if self._loop.time() >= self._complain_at:
            self._complain_at = self._loop.time() + COMPLAINT_INTERVAL
            _log.error("no connection can be accepted: {error}; trying on", error=error.strerror)

    def _pause(self, short: str, seconds: float) -> None:
        self._arrivals.pauses[short] += 1
        self._loop.remove_reader(self._listener)
        self._resuming = self._loop.call_later(seconds, self.startListening)

    def _take(self, connection: socket.socket, address: str) -> None:
        visit = self._admission.enter(address, connection.fileno())
        if visit is None or visit.refusal is not None:
            self._arrivals.give_up_one()  # the next one's place
        if visit is None:
            connection.close()
            return
        protocol = self._factory.buildProtocol(None)  # type: ignore[arg-type]
        if protocol is None:
            self._admission.leave(visit)
            connection.close()
            return
        connection.setblocking(False)
        arrival = _Arrival(self, connection, visit)
        transport = arrival.transport = self._transport(protocol, arrival)
        transport.refusal = visit.refusal
        attaching = arrival.attaching = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: transport, connection)
        )
        attaching.add_done_callback(arrival.attached)

    def _transport(self, protocol: IProtocol, arrival: _Arrival) -> Adapter:
        visit = arrival.visit
        if self._tls is None:
            transport: Adapter = BoundedTransport(protocol)
            transport.left = lambda: self._admission.leave(visit)
            return transport
        self._arrivals.begin(arrival.connection, arrival.give_up)
        seconds = self._handshake_timeout
        if visit.refusal is not None:
            seconds = min(seconds, TELLING_TIMEOUT)
        return TlsTransport(protocol, self._tls, self._loop, seconds, arrival.shaken)

    def arrived(self, arrival: _Arrival, failure: str) -> None:
        """A handshake is over."""
        self._arrivals.end(arrival.connection)
        if failure:
            self._arrivals.failed[failure] += 1
            self._admission.leave(arrival.visit)
        elif arrival.transport is not None:
            visit = arrival.visit
            arrival.transport.left = lambda: self._admission.leave(visit)


@implementer(IStreamServerEndpoint)
class NativeServerEndpoint:
    """Accepts connections from a listening socket, with TLS if a context is given."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        tls: ssl.SSLContext | None = None,
        handshake_timeout: float = 10.0,
        admission: Admission | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        """
        @param handshake_timeout: seconds for the TLS handshake.
        @param admission: bounds the connections; none without.
        @param arrivals: bounds the handshakes, of several listeners if they share it.
        """
        self._loop = loop
        self._listener = listener
        self._tls = tls
        self._handshake_timeout = handshake_timeout
        self._admission = admission or Admission(UNBOUNDED)
        self._arrivals = arrivals or Arrivals()

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        port = NativePort(
            self._loop,
            self._listener,
            protocolFactory,
            self._admission,
            self._arrivals,
            self._tls,
            self._handshake_timeout,
        )
        self._listener.setblocking(False)
        port.startListening()
        return succeed(port)
