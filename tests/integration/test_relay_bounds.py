"""How much of a body the proxy itself holds for a side that does not take it."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet import reactor

from matrix.http import Limits
from matrix.net._transport import READ_MAX
from matrix.testing.proxy import Proxy
from matrix.testing.proxy_case import RelayCase, get, head_of, on_loop, stuff

MB = 1 << 20
READ = READ_MAX
MACHINE_READ = 256_000
"""What one read of the loop brings from a machine."""


class BoundCase(RelayCase):
    reactor = reactor

    def undeciphered(self, proxy: Proxy) -> int:
        (connection,) = proxy.factory.connections
        incoming = getattr(connection.transport, "_incoming", None)
        return incoming.pending if incoming is not None else 0

    def client_side(self, proxy: Proxy) -> Any:
        (connection,) = proxy.factory.connections
        return connection.transport._native


class HoldTests(BoundCase):
    """The machine is still waking: the request is with nobody yet."""

    @on_loop
    async def test_what_is_kept_of_a_body(self) -> None:
        for tls in (False, True):
            proxy = await self.before(1, tls)
            proxy.factory.handler = lambda exchange: None
            _, writer = await self.open(proxy)
            writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (64 * MB))
            await stuff(writer)
            kept = proxy.factory.hold.bytes
            self.assertGreater(kept, Limits().ahead)
            self.assertLessEqual(kept, Limits().ahead + READ)
            self.assertLessEqual(kept + self.undeciphered(proxy), 64 * 1024)
            await asyncio.sleep(0.5)
            self.assertEqual(proxy.factory.hold.bytes, kept)


class UploadTests(BoundCase):
    """The machine is awake and does not read."""

    @on_loop
    async def test_what_is_held_of_a_body(self) -> None:
        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.transport.pause_reading()  # type: ignore[attr-defined]

        for tls in (False, True):
            proxy = await self.proxy(deaf, tls)
            _, writer = await self.open(proxy)
            writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (64 * MB))
            await stuff(writer)
            (connection,) = proxy.factory.connections
            upstream = connection._sink._upstream.transport._native  # type: ignore[union-attr]
            unsent = upstream.get_write_buffer_size()
            self.assertGreater(unsent, 64 * 1024)
            self.assertLessEqual(unsent, 64 * 1024 + READ)
            self.assertEqual(connection._reader.buffered, 0)
            self.assertLessEqual(self.undeciphered(proxy), READ)


class DownloadTests(BoundCase):
    """The client does not read."""

    @on_loop
    async def test_what_is_held_of_an_answer(self) -> None:
        async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MB))
            await stuff(writer)

        for tls in (False, True):
            proxy = await self.proxy(pour, tls)
            _, writer = await self.open(proxy)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(get())
            await asyncio.sleep(1.5)
            unsent = self.client_side(proxy).get_write_buffer_size()
            self.assertGreater(unsent, 0)
            self.assertLessEqual(unsent, 64 * 1024 + MACHINE_READ)
