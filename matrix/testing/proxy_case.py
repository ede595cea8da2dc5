"""What tests of the proxy over real sockets share: a machine, a proxy, clients on the loop."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from matrix.model import Address
from matrix.net import LocalAuthority, event_loop, server_context
from matrix.testing.proxy import Proxy

Machine = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Deferred[None]]:
    """Run a test as an asyncio task: its clients are asyncio's."""

    def run(self: RelayCase) -> Deferred[None]:
        limited = asyncio.wait_for(test(self), 60)
        return Deferred.fromFuture(asyncio.ensure_future(limited, loop=self.loop))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class RelayCase(TestCase):
    """With a machine and a proxy before it, on the C{reactor} that the test brings along."""

    reactor: Any
    timeout = 90

    def setUp(self) -> None:
        self.loop = event_loop(self.reactor)

    async def proxy(self, machine: Machine, tls: bool = False, **options: Any) -> Proxy:
        server = await asyncio.start_server(machine, "127.0.0.1", 0)
        self.addCleanup(server.close)
        return await self.before(server.sockets[0].getsockname()[1], tls, **options)

    async def before(self, port: int, tls: bool = False, **options: Any) -> Proxy:
        """A proxy before what listens on a port."""
        proxy = Proxy(
            self.reactor, Address(host="127.0.0.1", port=port), options.pop("limits", None)
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.close()))
        context = None
        if tls:
            directory = tempfile.TemporaryDirectory(prefix="tls-")
            self.addCleanup(directory.cleanup)
            ca, cert, key = LocalAuthority(Path(directory.name)).ensure()
            context = server_context(cert, key)
            self.trust = ssl.create_default_context(cafile=str(ca))
        listening = Deferred.fromCoroutine(proxy.listen(context, **options))
        await listening.asFuture(self.loop)
        self.tls = tls
        return proxy

    async def open(self, proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        trust: dict[str, Any] = (
            {"ssl": self.trust, "server_hostname": "localhost"} if self.tls else {}
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, **trust)
        self.addCleanup(writer.transport.abort)
        return reader, writer


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def stuff(writer: asyncio.StreamWriter) -> None:
    """Write until nothing more goes out."""
    while True:
        writer.write(bytes(1 << 20))
        try:
            await asyncio.wait_for(writer.drain(), 0.5)
        except TimeoutError:
            return


def reset_on_close(writer: asyncio.StreamWriter) -> None:
    plug = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plug.close()


def get(path: str = "/", more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n{more}\r\n".encode()
