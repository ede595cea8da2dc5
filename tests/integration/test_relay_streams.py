"""The proxy over real sockets: streams, WebSockets, and either side that leaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from time import perf_counter

from twisted.internet import reactor
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from matrix.http import Limits
from matrix.testing.proxy_case import RelayCase, get, head_of, on_loop, reset_on_close

MB = 1 << 20


class RealCase(RelayCase):
    """On the reactor of the tests."""

    reactor = reactor


class LeavingTests(RealCase):
    async def machine(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        self.arrived.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        self.left.set()

    @on_loop
    async def test_client_that_aborts_ends_the_machines_work(self) -> None:
        for tls in (False, True):
            self.arrived, self.left = asyncio.Event(), asyncio.Event()
            proxy = await self.proxy(self.machine, tls)
            _, writer = await self.open(proxy)
            writer.write(get())
            await self.arrived.wait()
            if not tls:
                # A plain end may be a half-close, by who still reads; a reset is none.
                reset_on_close(writer)
            writer.transport.abort()
            await asyncio.wait_for(self.left.wait(), 5)
            self.assertEqual([one.status for one in proxy.over], [499])
            self.assertEqual(proxy.backend.requests, 0)

    @on_loop
    async def test_half_closed_client_gets_its_answer(self) -> None:
        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(2):
                await head_of(reader)
                await asyncio.sleep(0.1)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        reader, writer = await self.open(await self.proxy(machine))
        writer.write(get() * 2)
        writer.write_eof()
        answer = await reader.read()
        self.assertEqual(answer.count(b"\r\n\r\nok"), 2)

    @on_loop
    async def test_cut_short_is_seen_as_that(self) -> None:
        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
            await writer.drain()
            await asyncio.sleep(0.1)
            writer.transport.abort()

        reader, writer = await self.open(await self.proxy(machine))
        writer.write(get())
        await head_of(reader)
        self.assertEqual(await reader.readexactly(7), b"2\r\nok\r\n")
        with self.assertRaises(ConnectionResetError):
            await reader.read()

    @on_loop
    async def test_cut_short_for_http10(self) -> None:
        """Where only the connection's end tells of the body's, a plain one would lie."""

        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
            await writer.drain()
            await asyncio.sleep(0.1)
            writer.close()

        reader, writer = await self.open(await self.proxy(machine))
        writer.write(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        await head_of(reader)
        with self.assertRaises(ConnectionResetError):
            await reader.read()

    @on_loop
    async def test_handshake_has_a_limit(self) -> None:
        proxy = await self.proxy(self.machine, tls=True, handshake_timeout=0.3)
        reader, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
        began = perf_counter()
        with self.assertRaises(ConnectionResetError):
            # Closed or reset: either way it is over in time.
            if not await asyncio.wait_for(reader.read(), 5):
                raise ConnectionResetError
        self.assertLess(perf_counter() - began, 3)

    @on_loop
    async def test_machine_that_is_not_there(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        reader, writer = await self.open(await self.before(port))
        writer.write(get())
        self.assertIn(b" 502 ", await head_of(reader))


class StreamTests(RealCase):
    @on_loop
    async def test_events_arrive_at_once(self) -> None:
        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            while True:
                writer.write(b"data: %.6f\n\n" % perf_counter())
                await asyncio.sleep(0.02)

        proxy = await self.proxy(machine, tls=True)
        reader, writer = await self.open(proxy)
        writer.write(get())
        self.assertIn(b"chunked", await head_of(reader))
        delays = []
        for _ in range(20):
            line = await reader.readuntil(b"\n\n\r\n")
            delays.append(perf_counter() - float(line.split(b"data: ")[1]))
        self.assertLess(sorted(delays)[len(delays) // 2], 0.05)
        proxy.backend.drain("suspend")
        await reader.readuntil(b"0\r\n\r\n")

    @on_loop
    async def test_websocket(self) -> None:
        """Text and binary, in fragments, compressed, small and large, over TLS."""

        async def echo(socket: ServerConnection) -> None:
            async for message in socket:
                await socket.send(message)

        server = await serve(echo, "127.0.0.1", 0, max_size=None)
        self.addCleanup(server.close)
        proxy = await self.before(server.sockets[0].getsockname()[1], tls=True)
        for compression in ("deflate", None):
            async with connect(
                f"wss://localhost:{proxy.port}/",
                ssl=self.trust,
                host="127.0.0.1",
                compression=compression,  # type: ignore[arg-type]
                max_size=None,
                proxy=None,
            ) as client:
                for message in ("", "hello", "x" * 70000, os.urandom(4 * MB), b""):
                    await client.send(message)
                    self.assertEqual(await client.recv(), message)
                await client.send(iter(["frag", "ment", "ed"]))
                self.assertEqual(await client.recv(), "fragmented")
                await (await client.ping())
        self.assertEqual(proxy.backend.requests, 0)

    @on_loop
    async def test_websocket_is_told_when_the_machine_goes_to_sleep(self) -> None:
        codes: list[int | None] = []

        async def wait(socket: ServerConnection) -> None:
            try:
                await socket.recv()
            except ConnectionClosed as closed:
                codes.append(closed.rcvd.code if closed.rcvd else None)

        server = await serve(wait, "127.0.0.1", 0)
        self.addCleanup(server.close)
        proxy = await self.before(
            server.sockets[0].getsockname()[1], limits=Limits(stream_silence=30)
        )
        async with connect(f"ws://127.0.0.1:{proxy.port}/", proxy=None) as client:
            proxy.backend.drain("suspend")
            with self.assertRaises(ConnectionClosed) as caught:
                await asyncio.wait_for(client.recv(), 5)
        assert caught.exception.rcvd is not None
        self.assertEqual(
            (caught.exception.rcvd.code, caught.exception.rcvd.reason), (1012, "suspend")
        )
        await asyncio.sleep(0.1)
        self.assertEqual(codes, [1012])
