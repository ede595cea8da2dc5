"""The proxy over real sockets: big bodies and slow readers, with TLS and without."""

from __future__ import annotations

import asyncio
import hashlib
import os

from twisted.internet import reactor

from matrix.testing.proxy_case import RelayCase, get, head_of, on_loop

MB = 1 << 20
BIG = 64 * MB
IN_FLIGHT = 16 * MB
"""Bytes that may be under way to a reader that has stopped: four kernel buffers of up to
4 to 6 MB at the two sockets on the way, and 64 KiB in each of our own."""


class RealCase(RelayCase):
    """On the reactor of the tests."""

    reactor = reactor


class BigBodyTests(RealCase):
    async def download(self, tls: bool) -> None:
        block = os.urandom(MB)

        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
            for _ in range(BIG // MB):
                writer.write(block)
                await writer.drain()

        reader, writer = await self.open(await self.proxy(machine, tls))
        writer.write(get())
        self.assertIn(b"Content-Length: %d\r\n" % BIG, await head_of(reader))
        seen, expected, left = hashlib.sha256(), hashlib.sha256(block * (BIG // MB)), BIG
        while left:
            data = await reader.read(MB)
            self.assertNotEqual(data, b"", "cut short")
            seen.update(data)
            left -= len(data)
        self.assertEqual(seen.digest(), expected.digest())

    async def upload(self, tls: bool, chunked: bool) -> None:
        block, seen = os.urandom(MB), hashlib.sha256()

        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head, size = await head_of(reader), 0
            if b"chunked" in head:
                while length := int(await reader.readuntil(b"\r\n"), 16):
                    seen.update((await reader.readexactly(length + 2))[:-2])
                    size += length
            else:
                while size < BIG:
                    data = await reader.read(MB)
                    seen.update(data)
                    size += len(data)
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d" % (len(str(size)), size)
            )

        reader, writer = await self.open(await self.proxy(machine, tls))
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % BIG
        writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % framing)
        for _ in range(BIG // MB):
            writer.write(b"%x\r\n%b\r\n" % (MB, block) if chunked else block)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        await head_of(reader)
        self.assertEqual(await reader.readexactly(len(str(BIG))), str(BIG).encode())
        self.assertEqual(seen.digest(), hashlib.sha256(block * (BIG // MB)).digest())

    @on_loop
    async def test_download_over_tls(self) -> None:
        await self.download(tls=True)

    @on_loop
    async def test_download(self) -> None:
        await self.download(tls=False)

    @on_loop
    async def test_upload_over_tls(self) -> None:
        await self.upload(tls=True, chunked=False)

    @on_loop
    async def test_chunked_upload(self) -> None:
        await self.upload(tls=False, chunked=True)


class SlowReaderTests(RealCase):
    """Who stops reading stops the writer at the other end, with little under way."""

    async def settled(self, count: list[int]) -> int:
        """The count once it has stood still for half a second."""
        last = -1
        while last != count[0]:
            last = count[0]
            await asyncio.sleep(0.5)
        return last

    async def slow_client(self, tls: bool) -> None:
        sent = [0]

        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
            while sent[0] < BIG:
                writer.write(bytes(MB // 4))
                await writer.drain()
                sent[0] += MB // 4

        reader, writer = await self.open(await self.proxy(machine, tls))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(get())
        stopped = await self.settled(sent)
        self.assertGreater(stopped, 0)
        self.assertLess(stopped, IN_FLIGHT)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await head_of(reader)
        left = BIG
        while left:
            left -= len(await reader.read(MB))
        self.assertEqual(sent[0], BIG)

    @on_loop
    async def test_client(self) -> None:
        await self.slow_client(tls=False)

    @on_loop
    async def test_client_over_tls(self) -> None:
        await self.slow_client(tls=True)

    @on_loop
    async def test_machine(self) -> None:
        sent, go_on = [0], asyncio.Event()

        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            await go_on.wait()
            left = BIG
            while left:
                left -= len(await reader.read(MB))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        async def upload() -> None:
            writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % BIG)
            while sent[0] < BIG:
                writer.write(bytes(MB // 4))
                await writer.drain()
                sent[0] += MB // 4

        reader, writer = await self.open(await self.proxy(machine))
        uploading = asyncio.ensure_future(upload())
        stopped = await self.settled(sent)
        self.assertGreater(stopped, 0)
        self.assertLess(stopped, IN_FLIGHT)
        go_on.set()
        await uploading
        self.assertIn(b" 204 ", await head_of(reader))

    @on_loop
    async def test_slow_last_answer_is_whole(self) -> None:
        """Also over TLS, with the connection closing behind it while the client dawdles."""

        async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 * MB))
            writer.write(bytes(8 * MB))
            await writer.drain()

        reader, writer = await self.open(await self.proxy(machine, tls=True))
        writer.write(get(more="Connection: close\r\n"))
        await head_of(reader)
        left = 8 * MB
        while left:
            data = await reader.read(MB if left > 4 * MB else 64 * 1024)
            self.assertNotEqual(data, b"", "cut short")
            left -= len(data)
            if left < 2 * MB:
                await asyncio.sleep(0.2)  # six seconds in all
        self.assertEqual(await reader.read(), b"")
