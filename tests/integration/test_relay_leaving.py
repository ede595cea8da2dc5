"""Clients that leave where nobody reads from them, over real sockets: known within a second."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from time import perf_counter

from twisted.internet import reactor

from matrix.http import ServerConnection
from matrix.testing.proxy import Proxy
from matrix.testing.proxy_case import RelayCase, get, head_of, on_loop, reset_on_close, stuff

MB = 1 << 20
SOON = 1.0
"""Seconds within which the machine's work for a client that left must be broken off."""
NOTICED = 0.2
"""Seconds that this test and its machine, on the same loop, may add."""

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def head(method: str, more: str = "") -> bytes:
    return get(more=more).replace(b"GET", method.encode())


def reset(writer: asyncio.StreamWriter) -> None:
    """Leave with a reset, as a client does whose unread bytes its kernel throws away."""
    reset_on_close(writer)
    writer.transport.abort()


def finish(writer: asyncio.StreamWriter) -> None:
    """Leave with a plain end (FIN), and over TLS without a close_notify."""
    writer.transport.abort()


def notify(writer: asyncio.StreamWriter) -> None:
    """Leave as politely as TLS can."""
    writer.close()


class LeavingCase(RelayCase):
    """With machines that read the head of a request and nothing else."""

    reactor = reactor

    def setUp(self) -> None:
        super().setUp()
        self.machines: list[asyncio.StreamWriter] = []
        self.arrived = asyncio.Event()

    async def deaf(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        self.machines.append(writer)
        self.arrived.set()

    async def meet(self, tls: bool, request: bytes) -> tuple[Proxy, Pair]:
        """A client whose request has reached its machine."""
        self.arrived = asyncio.Event()
        self.machines.clear()
        proxy = await self.proxy(self.deaf, tls)
        reader, writer = await self.open(proxy)
        writer.write(request)
        await asyncio.wait_for(self.arrived.wait(), 5)
        return proxy, (reader, writer)

    async def broken_off(self, proxy: Proxy, status: int = 499) -> None:
        """The machine's connection is reset in time, and the request is on record as left."""
        began = perf_counter()
        look = select.poll()
        look.register(self.machines[0].get_extra_info("socket").fileno(), 0)
        while not look.poll(0) or not proxy.over:
            self.assertLess(perf_counter() - began, SOON + NOTICED, "not noticed in time")
            await asyncio.sleep(0.01)
        self.assertEqual([one.status for one in proxy.over], [status])
        self.assertEqual(proxy.backend.requests, 0)

    async def kept(self, proxy: Proxy, seconds: float = 1.5) -> None:
        """Nothing is broken off."""
        await asyncio.sleep(seconds)
        self.assertEqual(proxy.over, [])
        self.assertEqual(proxy.backend.requests, 1)


class UploadTests(LeavingCase):
    """The machine does not take the body, so that we do not read it either."""

    @on_loop
    async def test_reset(self) -> None:
        for tls in (False, True):
            for framing in (f"Content-Length: {64 * MB}\r\n", "Transfer-Encoding: chunked\r\n"):
                proxy, (_, writer) = await self.meet(tls, head("PUT", framing))
                if "chunked" in framing:
                    writer.write(b"%x\r\n" % (64 * MB))
                await stuff(writer)
                reset(writer)
                await self.broken_off(proxy)

    async def filled(self, proxy: Proxy, writer: asyncio.StreamWriter) -> None:
        """Send as much as keeps the connection paused, with all of it arrived."""
        (connection,) = proxy.factory.connections
        while not connection.transport.paused:
            writer.write(bytes(MB // 16))
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.1)  # what is on its way arrives

    @on_loop
    async def test_end_of_tls(self) -> None:
        framing = f"Content-Length: {64 * MB}\r\n"
        proxy, (_, writer) = await self.meet(True, head("PUT", framing))
        await self.filled(proxy, writer)
        finish(writer)
        await self.broken_off(proxy)

    @on_loop
    async def test_half_close_behind_a_whole_body_is_none(self) -> None:
        """The client waits for its answer, and gets it."""
        for chunked in (False, True):
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {16 * MB}"
            proxy, (reader, writer) = await self.meet(False, head("PUT", framing + "\r\n"))
            body = bytes(16 * MB)
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body)
            writer.write_eof()
            await self.kept(proxy)
            machine = self.machines[0]
            machine.transport.resume_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(0.5)
            machine.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            self.assertTrue((await asyncio.wait_for(reader.read(), 5)).endswith(b"\r\n\r\nok"))


class PipelinedTests(LeavingCase):
    """Further requests wait for their turn, unread."""

    async def pipelined(self, tls: bool) -> tuple[Proxy, Pair]:
        proxy, (reader, writer) = await self.meet(tls, get())
        (connection,) = proxy.factory.connections
        while not connection.transport.paused:
            writer.write(get(more=f"X-Long: {'x' * 30000}\r\n"))
            await asyncio.sleep(0.002)
        return proxy, (reader, writer)

    @on_loop
    async def test_reset(self) -> None:
        for tls in (False, True):
            proxy, (_, writer) = await self.pipelined(tls)
            reset(writer)
            await self.broken_off(proxy)

    @on_loop
    async def test_end_of_tls(self) -> None:
        proxy, (_, writer) = await self.pipelined(True)
        finish(writer)
        await self.broken_off(proxy)

    @on_loop
    async def test_plain_end_is_a_half_close(self) -> None:
        proxy, (_, writer) = await self.pipelined(False)
        writer.write_eof()
        await self.kept(proxy)
        reset(writer)
        await self.broken_off(proxy)


class DownloadTests(LeavingCase):
    """The client does not read what the machine sends."""

    async def pouring(self, tls: bool) -> tuple[Proxy, Pair]:
        """A client that has stopped reading, and a machine that has noticed."""
        proxy, (reader, writer) = await self.meet(tls, get())
        await head_of_nothing(reader, writer)
        machine = self.machines[0]
        machine.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (256 * MB))
        await stuff(machine)
        return proxy, (reader, writer)

    @on_loop
    async def test_reset(self) -> None:
        for tls in (False, True):
            proxy, (_, writer) = await self.pouring(tls)
            reset(writer)
            await self.broken_off(proxy)

    @on_loop
    async def test_close_with_unread_bytes(self) -> None:
        for tls in (False, True):
            proxy, (_, writer) = await self.pouring(tls)
            finish(writer)
            await self.broken_off(proxy)

    @on_loop
    async def test_close_notify(self) -> None:
        """From a client that stays, and does not read either."""
        proxy, (_, writer) = await self.pouring(True)
        notify(writer)
        await self.broken_off(proxy)

    @on_loop
    async def test_plain_end_is_a_half_close(self) -> None:
        proxy, (_, writer) = await self.pouring(False)
        writer.write_eof()
        await self.kept(proxy)


async def head_of_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """From here on the client reads nothing."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]


class EventStreamTests(LeavingCase):
    @on_loop
    async def test_any_end_is_a_departure(self) -> None:
        """Nobody can be owed the end of what has none."""
        for tls, leave in ((False, finish), (False, reset), (True, finish), (True, notify)):
            proxy, (reader, writer) = await self.meet(tls, get())
            self.machines[0].write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            await head_of(reader)
            leave(writer)
            await self.broken_off(proxy)


class WebSocketTests(LeavingCase):
    """The machine reads nothing of what the client sends through the tunnel."""

    @on_loop
    async def test_reset(self) -> None:
        upgrade = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
        agreed = (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        for tls in (False, True):
            proxy, (reader, writer) = await self.meet(tls, get(more=upgrade))
            self.machines[0].write(agreed)
            await head_of(reader)
            writer.write(b"\x82\xff" + (256 * MB).to_bytes(8, "big") + bytes(4))
            await stuff(writer)
            reset(writer)
            await self.broken_off(proxy, status=101)


class HeldTests(LeavingCase):
    """A request whose machine is still waking, with much of its body here or little."""

    async def held(self, tls: bool, body: bytes) -> tuple[Proxy, Pair]:
        self.arrived.clear()
        proxy = await self.before(1, tls)
        proxy.factory.handler = lambda exchange: exchange.on_gone(self.arrived.set)
        reader, writer = await self.open(proxy)
        writer.write(head("PUT", f"Content-Length: {MB}\r\n") + body)
        (connection,) = await self.until(lambda: proxy.factory.connections)
        await asyncio.sleep(0.3)
        self.assertEqual(connection.transport.paused, len(body) > 16 * 1024)
        return proxy, (reader, writer)

    async def until(self, found: Callable[[], set[ServerConnection]]) -> set[ServerConnection]:
        while not found():
            await asyncio.sleep(0.01)
        return found()

    @on_loop
    async def test_is_held_no_longer(self) -> None:
        little, much = b"x" * 1000, b"x" * 60000
        leaving: list[tuple[bool, bytes, Callable[[asyncio.StreamWriter], None], int]] = [
            (False, little, reset, 499),
            (False, little, finish, 400),
            (False, much, reset, 499),
            (True, little, reset, 499),
            (True, little, finish, 499),
            (True, little, notify, 499),
            (True, much, reset, 499),
            (True, much, finish, 499),
        ]
        for tls, body, leave, status in leaving:
            proxy, (_, writer) = await self.held(tls, body)
            leave(writer)
            await asyncio.wait_for(self.arrived.wait(), SOON + NOTICED)
            await asyncio.sleep(0.05)
            self.assertEqual([one.status for one in proxy.over], [status])
