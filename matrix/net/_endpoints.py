"""Listening sockets, and connectors on the event loop's native transports."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from matrix.errors import ConfigurationError
from matrix.model import Address, host_port
from matrix.net._files import check_free
from matrix.net._transport import NativeTransport

_T = TypeVar("_T")

_UCRED = struct.Struct("3i")
"""C{struct ucred}: process, user and group id."""

BACKLOG = 4096
"""Connections the kernel queues for us: a crowd that arrives within one loop iteration."""

FULL_PAUSE = 0.005
"""Seconds before another try at a unix socket whose queue is full: a few turns of the loop of
whoever listens."""


def event_loop(reactor: Any) -> asyncio.AbstractEventLoop:
    """
    The asyncio loop that the reactor runs on.

    @raise ConfigurationError: it runs on none.
    """
    loop = getattr(reactor, "_asyncioEventloop", None)
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise ConfigurationError(
            f"the reactor is {type(reactor).__name__}; Matrix needs the asyncio reactor: "
            "leave out --reactor, or give --reactor=asyncio"
        )
    return loop


def parse_listen(text: str) -> Address:
    """
    Where to listen: C{HOST:PORT}, C{:PORT} (all addresses), C{unix:/path} or
    C{tcp:HOST:PORT}.

    @raise ConfigurationError: it is none of these.
    """
    if text.startswith(("unix:", "tcp:")):
        return Address.parse(text)
    try:
        host, port = host_port(text)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    return Address(host=host or "::", port=port)


def bind(address: Address, *, queues: int = 1) -> list[socket.socket]:
    """
    Bind and listen, now: a port in use must end the program, not be found out later.

    A name such as C{localhost} may stand for several addresses; all are bound, to the
    same port. A unix socket is made with mode 0600; a stale one is replaced.

    @param queues: how many sockets to bind for each address, one set of them after the
        other: the kernel spreads connections evenly over the queues of an address
        (SO_REUSEPORT, socket(7)).
    @raise ConfigurationError: it cannot be bound; says why in one line.
    """
    try:
        if address.path is not None:
            return [_bind_unix(address.path)]
        host, port = address.host or "::", address.port or 0
        if queues == 1:
            return _bind_tcp(host, port, False)
        if port:  # or a program that shares its port too would not be noticed
            for probe in _bind_tcp(host, port, False):
                probe.close()
        return _bind_queues(host, port, queues)
    except OSError as error:
        hint = {
            errno.EEXIST: "there is something of that name that is no socket",
            errno.EADDRINUSE: "another program listens there already",
            errno.EACCES: "this user may not (ports below 1024 need CAP_NET_BIND_SERVICE)",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }.get(error.errno or 0, error.strerror or str(error))
        raise ConfigurationError(f"cannot listen on {address}: {hint}") from None


def _bind_unix(path: str) -> socket.socket:
    if os.path.lexists(path):
        if not Path(path).is_socket():
            raise OSError(errno.EEXIST, "in the way")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # a queue that is full would let us wait for ever
            if probe.connect_ex(path) != errno.ECONNREFUSED:
                raise OSError(errno.EADDRINUSE, "in use")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    old = os.umask(0o177)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(old)
    listener.listen(BACKLOG)
    return listener


def _bind_queues(host: str, port: int, queues: int) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    try:
        for _ in range(queues):
            listeners += _bind_tcp(host, port, True)
            port = port or listeners[0].getsockname()[1]
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bind_tcp(host: str, port: int, reuse_port: bool) -> list[socket.socket]:
    if host == "::" and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104 -- all addresses is what the operator asked for
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = dict.fromkeys((family, place) for family, *_, place in found)
    listeners: list[socket.socket] = []
    try:
        for family, place in places:
            try:
                listeners.append(_listen_on(family, place, port, reuse_port, host == "::"))
            except OSError as error:
                # A name's IPv6 half is worth nothing where the kernel has no IPv6.
                no_ipv6 = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
                others = any(other != socket.AF_INET6 for other, _ in places)
                if family != socket.AF_INET6 or error.errno not in no_ipv6 or not others:
                    raise
            else:
                port = port or listeners[0].getsockname()[1]
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listen_on(
    family: int, place: Any, port: int, reuse_port: bool, dual_stack: bool
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        listener.bind((place[0], port, *place[2:]))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _native(
    factory: IProtocolFactory, made: list[NativeTransport]
) -> Callable[[], NativeTransport]:
    def make() -> NativeTransport:
        protocol = factory.buildProtocol(None)  # type: ignore[arg-type]
        if protocol is None:
            raise ConnectionRefusedError("refused by the factory")
        adapter = NativeTransport(protocol)
        made.append(adapter)
        return adapter

    return make


@implementer(IStreamClientEndpoint)
class NativeClientEndpoint:
    """Connects to an address."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: Address, files: int | None = None
    ) -> None:
        """@param files: the file number that connections must stay below, if there is one."""
        self._loop = loop
        self._address = address
        self._files = files
        self._crowd = DeferredLock()

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Fires with the connected protocol, or fails with an L{OSError}, or with L{Unavailable}
        if there is no file left for it. No time limit of its own: cancel the Deferred.

        Who listens on a unix socket must own its directory: a machine could put a link to
        another's socket there, and we may be allowed to connect to what it may not.
        """
        return Deferred.fromCoroutine(self._attempt(protocolFactory))

    async def _attempt(self, factory: IProtocolFactory) -> IProtocol:
        made: list[NativeTransport] = []
        try:
            return await self._connect(_native(factory, made))
        except CancelledError:
            for adapter in made:
                adapter.forsaken()
            raise

    async def _connect(self, make: Callable[[], NativeTransport]) -> IProtocol:
        address, loop = self._address, self._loop
        if address.path is None:
            host, port = str(address.host), address.port or 0
            connecting = self._opened(lambda: loop.create_connection(make, host, port))
            _, adapter = await self._outcome(connecting)
            return _unless_lost(adapter)
        transport, adapter = await self._connect_unix(make, address.path)
        protocol = _unless_lost(adapter)
        if _peer_uid(transport) != os.stat(os.path.dirname(address.path)).st_uid:
            transport.abort()
            raise PermissionError(
                errno.EPERM, f"who listens on {address} does not own its directory"
            )
        return protocol

    async def _connect_unix(
        self, make: Callable[[], NativeTransport], path: str
    ) -> tuple[asyncio.Transport, NativeTransport]:
        """
        Where TCP would wait for a place in the listener's queue, a unix socket that does not
        block fails with EAGAIN (connect(2)). It is not refused, so we wait in its place: in
        a queue of our own, of which the first alone tries.
        """
        loop = self._loop

        def connect() -> Coroutine[Any, Any, tuple[asyncio.Transport, NativeTransport]]:
            return loop.create_unix_connection(make, path)

        try:
            return await self._outcome(self._opened(connect))
        except BlockingIOError:
            await self._crowd.acquire()
        try:
            while True:
                try:
                    return await self._outcome(self._opened(connect))
                except BlockingIOError:
                    await self._outcome(asyncio.sleep(FULL_PAUSE))
        finally:
            self._crowd.release()

    async def _opened(self, connect: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Connect, which opens a socket at once, if there is a file left for it."""
        if self._files is not None:
            check_free(self._files)
        return await connect()

    async def _outcome(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What the loop's own coroutine comes to; cancelled, it ends as a Deferred's does."""
        try:
            return await Deferred.fromFuture(self._loop.create_task(work))
        except asyncio.CancelledError:
            raise CancelledError from None


def _unless_lost(adapter: NativeTransport) -> IProtocol:
    """
    The connected protocol, which has yet to hear of the connection's end: what it was told
    before anybody gave it work is not told again.

    @raise ConnectionResetError: the other side closed before we got as far as this.
    """
    if adapter.disconnecting:
        raise ConnectionResetError(errno.ECONNRESET, "closed as soon as it was made")
    return adapter.protocol


def _peer_uid(transport: asyncio.BaseTransport) -> int:
    """The user id that a unix socket's other end had when it began to listen (unix(7))."""
    credentials: bytes = transport.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size
    )
    _pid, uid, _gid = _UCRED.unpack(credentials)
    return int(uid)
