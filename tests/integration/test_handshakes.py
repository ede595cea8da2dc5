"""TLS handshakes over real sockets: how they fail, and that nobody who is silent is in the way."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from matrix.model import Address
from matrix.net import (
    Admission,
    Arrivals,
    LocalAuthority,
    NativeServerEndpoint,
    bind,
    event_loop,
    server_context,
)
from matrix.net import _arrivals as arrivals_module
from matrix.testing.proxy_case import on_loop


class Greeter(Protocol):
    def connectionMade(self) -> None:
        self.transport.write(b"hello")


class HandshakeTests(TestCase):
    timeout = 90

    def setUp(self) -> None:
        self.loop = event_loop(reactor)
        folder = tempfile.TemporaryDirectory(prefix="tls-")
        self.addCleanup(folder.cleanup)
        ca, cert, key = LocalAuthority(Path(folder.name)).ensure()
        self.server_tls = server_context(cert, key)
        self.trust = ssl.create_default_context(cafile=str(ca))

    async def listen(
        self, seconds: float = 10.0, most: int = 100, **bounds: Any
    ) -> tuple[Admission, Arrivals]:
        (listener,) = bind(Address(host="127.0.0.1", port=0))
        self.place = listener.getsockname()
        admission, arrivals = Admission(bounds.pop("files", 9999), **bounds), Arrivals(most)
        endpoint = NativeServerEndpoint(
            self.loop, listener, self.server_tls, seconds, admission, arrivals
        )
        listening: Deferred[Any] = endpoint.listen(Factory.forProtocol(Greeter))
        self.port = await listening.asFuture(self.loop)
        self.addCleanup(self.port.stopListening)
        return admission, arrivals

    async def greeted(self) -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection(
            *self.place, ssl=self.trust, server_hostname="localhost"
        )
        self.addCleanup(writer.transport.abort)
        self.assertEqual(await reader.readexactly(5), b"hello")
        return writer

    def silent(self) -> socket.socket:
        client = socket.create_connection(self.place)
        self.addCleanup(client.close)
        client.setblocking(False)
        return client

    async def until(self, condition: Any) -> None:
        while not condition():
            await asyncio.sleep(0.01)

    @on_loop
    async def test_a_good_one_is_counted_until_it_is_closed(self) -> None:
        admission, arrivals = await self.listen()
        writer = await self.greeted()
        self.assertEqual((admission._open, arrivals.in_progress, admission.admitted), (1, 0, 1))
        writer.transport.abort()
        await self.until(lambda: admission._open == 0)
        self.assertEqual(dict(arrivals.failed), {})

    @on_loop
    async def test_each_failure_is_counted_by_its_reason_and_frees_its_file(self) -> None:
        admission, arrivals = await self.listen(seconds=0.2)
        files = len(os.listdir("/proc/self/fd"))
        silent = self.silent()
        babbler, leaver, resetter = self.silent(), self.silent(), self.silent()
        await self.loop.sock_sendall(babbler, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        leaver.close()
        await self.until(lambda: arrivals.in_progress <= 2)
        resetter.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        resetter.close()
        await self.until(lambda: sum(arrivals.failed.values()) == 4)
        self.assertEqual(dict(arrivals.failed), {"timeout": 1, "protocol": 1, "gone": 2})
        self.assertEqual((admission._open, arrivals.in_progress), (0, 0))
        silent.close()
        babbler.close()
        await self.until(lambda: len(os.listdir("/proc/self/fd")) <= files)

    @on_loop
    async def test_silent_ones_count_against_the_bounds(self) -> None:
        admission, _ = await self.listen(per_address=3)
        for _ in range(3):
            self.silent()
        await self.until(lambda: admission.admitted == 3)
        self.silent()
        await self.until(lambda: admission.refused == 1)

    @on_loop
    async def test_silent_ones_make_room_for_others(self) -> None:
        self.patch(arrivals_module, "MUTE", 0.1)
        _, arrivals = await self.listen(most=5)
        crowd = [self.silent() for _ in range(50)]
        for _ in range(3):
            await self.greeted()
        self.assertLessEqual(arrivals.in_progress, 5)
        self.assertGreater(arrivals.failed["silent"], 40)
        self.assertGreater(arrivals.pauses["handshakes"], 0)
        with self.assertRaises(ConnectionResetError):
            await self.loop.sock_recv(crowd[0], 1)

    @on_loop
    async def test_a_crowd_that_talks_loses_nobody(self) -> None:
        _, arrivals = await self.listen(most=4)
        await asyncio.gather(*(self.greeted() for _ in range(60)))
        self.assertEqual(dict(arrivals.failed), {})

    @on_loop
    async def test_without_a_file_to_spare_a_client_is_closed_at_once(self) -> None:
        admission, _ = await self.listen(files=0, telling=0)
        client = self.silent()
        self.assertEqual(await asyncio.wait_for(self.loop.sock_recv(client, 1), 1), b"")
        self.assertEqual((admission.cut, admission._open), (1, 0))

    @on_loop
    async def test_one_to_be_told_off_must_be_quick(self) -> None:
        admission, arrivals = await self.listen(seconds=60.0, files=0)
        self.silent()
        await self.until(lambda: admission.refused == 1)
        began = self.loop.time()
        await self.until(lambda: arrivals.failed["timeout"] == 1)
        self.assertLess(self.loop.time() - began, 5)
        self.assertEqual(admission.telling, 0)

    @on_loop
    async def test_those_in_progress_outlive_the_listener(self) -> None:
        _, arrivals = await self.listen()
        client = self.silent()
        await self.until(lambda: arrivals.in_progress == 1)
        self.port.stopListening()
        reader, writer = await asyncio.open_connection(
            sock=client, ssl=self.trust, server_hostname="localhost"
        )
        self.assertEqual(await reader.readexactly(5), b"hello")
        writer.transport.abort()
        self.assertEqual(dict(arrivals.failed), {})
