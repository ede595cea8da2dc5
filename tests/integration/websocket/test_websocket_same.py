"""The websockets library talks to itself directly and through Matrix: same outcome."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from matrix.testing.websocket_case import CLOSE, Scenario, Way, WebSocketCase, plain, raw
from matrix.testing.websocket_machine import told
from matrix.testing.wire import run

MB = 1 << 20
HUGE = 64 * MB
"""Bytes of a frame of 8 GiB that are really sent."""

GROWTH = 24 * MB
"""By which the router's memory may grow meanwhile: what was let go is not always given back."""

IN_FLIGHT = 16 * MB
"""Bytes on the way to who does not read: kernel buffers at the sockets on the way, 64 KiB in
each of ours, and what the library keeps."""


Talk = Callable[[ClientConnection], Awaitable[object]]


def client(talk: Talk, **options: Any) -> Scenario:
    """A client of the library's: what came of its talk, and how the connection ended."""

    async def scenario(way: Way, target: str) -> object:
        async with way.connect(target, **options) as socket:
            said: object = None
            try:
                said = await talk(socket)
                await socket.close()
            except ConnectionClosed:
                pass
            await socket.wait_closed()
        protocol = socket.protocol
        answer = socket.response
        assert answer is not None
        return [
            said,
            protocol.close_rcvd and [protocol.close_rcvd.code, protocol.close_rcvd.reason],
            protocol.close_sent and [protocol.close_sent.code, protocol.close_sent.reason],
            repr(protocol.parser_exc),
            socket.subprotocol,
            answer.headers.get("Sec-WebSocket-Extensions"),
            [repr(extension) for extension in protocol.extensions],
        ]

    return scenario


def echo(*messages: Any) -> Talk:
    async def talk(socket: ClientConnection) -> object:
        heard = []
        for message in messages:
            await socket.send(message)
            heard.append(told(await socket.recv()))
        return heard

    return talk


async def hear(socket: ClientConnection) -> object:
    heard: list[object] = []
    try:
        while True:
            heard.append(told(await socket.recv()))
    except ConnectionClosed as closed:
        heard.append(type(closed).__name__)
    return heard


async def pings(socket: ClientConnection) -> object:
    for payload in (b"", b"x", bytes(range(125))):
        await (await socket.ping(payload))
    await socket.pong(b"nobody asked")
    return "answered"


def burst(count: int) -> Talk:
    async def talk(socket: ClientConnection) -> object:
        async def send() -> None:
            for number in range(count):
                await socket.send(f"{number}")

        sending = asyncio.ensure_future(send())
        heard = [await socket.recv() for _ in range(count)]
        await sending
        return heard == [f"{number}" for number in range(count)]

    return talk


def closing(code: int, reason: str) -> Talk:
    async def talk(socket: ClientConnection) -> object:
        await socket.send("before")
        await socket.recv()
        await socket.close(code, reason)
        return None

    return talk


SIZES = (0, 125, 126, 65535, 65536, MB + 1)
MESSAGES = tuple(message for size in SIZES for message in ("x" * size, os.urandom(size)))

PIECES = (["frag", "ment", "ed"], [b"", b"\0" * 70000, b"end"], ["x"] * 300)

WITHOUT = {"compression": None}


def deflate(**options: Any) -> dict[str, Any]:
    return {"compression": None, "extensions": [ClientPerMessageDeflateFactory(**options)]}


class TalkTests(WebSocketCase):
    def test_messages(self) -> None:
        for name, options in (
            ("as they are", WITHOUT),
            ("compressed", {"compression": "deflate"}),
            (
                "no context on either side",
                deflate(server_no_context_takeover=True, client_no_context_takeover=True),
            ),
            ("no context at the machine", deflate(server_no_context_takeover=True)),
            ("small windows", deflate(server_max_window_bits=9, client_max_window_bits=9)),
        ):
            with self.subTest(name):
                self.assert_same(name, client(echo(*MESSAGES), **options), "/echo")

    def test_compressible_messages(self) -> None:
        messages = ["ab" * size for size in (1, 100, 5000, 500000)] * 3
        for name, options in (
            ("context", deflate()),
            ("none", deflate(server_no_context_takeover=True, client_no_context_takeover=True)),
        ):
            with self.subTest(name):
                self.assert_same(name, client(echo(*messages), **options), "/echo")

    def test_pieces(self) -> None:
        for options in (WITHOUT, {}):
            pieces = [iter(parts) for parts in PIECES * 2]
            halves = iter([pieces[:3], pieces[3:]])

            async def talk(socket: ClientConnection) -> object:
                return await echo(*next(halves))(socket)  # noqa: B023

            self.assert_same("pieces", client(talk, **options), "/echo")

    def test_pings(self) -> None:
        self.assert_same("ours", client(pings), "/echo")
        self.assert_same("the machine's", client(hear), "/ping")

    def test_ten_thousand_small_messages(self) -> None:
        self.assert_same("burst", client(burst(10000), **WITHOUT), "/echo")

    def test_closing(self) -> None:
        for code, reason in ((1000, ""), (1001, "going"), (1009, "x" * 123), (4999, "κόσμε")):
            with self.subTest(code):
                self.assert_same("client", client(closing(code, reason)), "/echo")
                target = f"/close?code={code}&reason={quote(reason)}"
                self.assert_same("machine", client(hear), target)


class HandshakeTests(WebSocketCase):
    def test_subprotocols(self) -> None:
        for offered in (["chat.v1"], ["chat.v1", "chat.v2"], ["other"], ["other", "chat.v1"]):
            [[*_, chosen, _, _], machine] = self.assert_same(
                str(offered), client(echo("x"), subprotocols=offered), "/echo"
            )
            self.assertEqual(machine["subprotocol"], chosen)

    def test_fields(self) -> None:
        fields = {"X-Own": "a  b", "Origin": "https://elsewhere.example"}
        self.assert_same("fields", client(echo("x"), additional_headers=fields), "/echo")

    def test_refusals(self) -> None:
        async def refused(way: Way, target: str) -> object:
            with self.assertRaises(InvalidStatus) as caught:
                await way.connect(target)
            answer = caught.exception.response
            return (
                answer.status_code,
                answer.reason_phrase,
                bytes(answer.body or b""),
                [answer.headers.get(name) for name in ("X-Why", "Content-Type")],
            )

        for status in (200, 302, 400, 401, 403, 404, 426, 500, 503):
            with self.subTest(status):
                body = quote("no\n" * status)
                self.assert_same(
                    "refused", refused, f"/refuse?status={status}&body={body}", opens=False
                )

    def test_handshakes_that_are_none(self) -> None:
        """As the machine judges them."""
        for name, fields, key in (
            ("two keys", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", None),
            ("short key", "", "eA=="),
            ("no key", "", ""),
            ("no base64", "", "??????????????????????=="),
            ("another version", "Sec-WebSocket-Version: 12\r\n", None),
            ("broken extensions", "Sec-WebSocket-Extensions: ;;\r\n", None),
            ("unknown extension", "Sec-WebSocket-Extensions: x-none; a=1\r\n", None),
            ("broken subprotocols", "Sec-WebSocket-Protocol: a b, @\r\n", None),
        ):
            with self.subTest(name):
                options = {} if key is None else {"key": key}
                scenario = raw(CLOSE, fields=fields, **options)
                [seen, _] = self.assert_same(name, scenario, "/echo", opens=False)
                self.assertEqual(seen[0] if name != "unknown extension" else 400, 400)

    def test_data_right_behind_the_handshake(self) -> None:
        """Sent before the machine has agreed, and with its very agreement."""
        message = b"\x81\x85\0\0\0\0early"
        self.assert_same("client", raw(1, CLOSE, behind=message), "/echo")
        big = b"\x82\xff" + struct.pack("!Q", 3 * MB) + b"\0\0\0\0" + b"\x55" * (3 * MB)
        self.assert_same("client, much", raw(1, CLOSE, behind=big), "/echo")
        self.assert_same("machine", raw(1, CLOSE), "/echo?greeting=hello")
        self.assert_same("machine, much", raw(1, CLOSE), "/echo?greeting=hello&times=200000")
        self.assert_same("both", raw(2, CLOSE, behind=message), "/echo?greeting=hello")


RUDE: Mapping[str, bytes] = {
    "a message": b"\x81\x02ok",
    "nothing": b"",
    "a mask": b"\x81\x82\0\0\0\0ok",
    "RSV": b"\xf1\x02ok",
    "an unknown opcode": b"\x83\x02ok",
    "a ping of 126": b"\x89\x7e\x00\x7e" + b"x" * 126,
    "a ping in pieces": b"\x09\x01x",
    "continuing nothing": b"\x80\x02ok",
    "half a frame": b"\x81\x05he",
    "half a header": b"\x82\x7f\0\0",
    "not deflated": b"\xc1\x02\xff\xff",
    "HTTP": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "the length's highest bit": b"\x82\x7f" + b"\xff" * 8,
}
"""What a machine without rules sends."""

RUDE_CLOSES: Mapping[str, bytes] = {
    "a close": b"\x88\x05\x03\xe8bye",
    "a close without a code": b"\x88\x00",
    "a close and more": b"\x88\x02\x03\xe8\x81\x02no",
    "a close within a message": b"\x01\x01x\x88\x02\x03\xe8",
    "a forbidden code": b"\x88\x02\x03\xed",
    "half a code": b"\x88\x01\x03",
}


class RudeMachineTests(WebSocketCase):
    def try_all(self, scenario: Scenario, table: Mapping[str, bytes], *ends: str) -> None:
        for end in ends:
            for name, data in table.items():
                with self.subTest(name, end=end):
                    self.assert_same(name, scenario, f"/raw?hex={data.hex()}&end={end}")

    def test_as_the_library_takes_it(self) -> None:
        self.try_all(client(hear), RUDE, "close", "reset")

    def test_closes_as_the_library_takes_them(self) -> None:
        """Half-closed, the machine also gets the answer."""
        self.try_all(client(hear), RUDE_CLOSES, "close", "eof", "reset")

    def test_byte_by_byte(self) -> None:
        self.try_all(raw(), {**RUDE, **RUDE_CLOSES, "no UTF-8": b"\x81\x01\xff"}, "close")


class SlowTests(WebSocketCase):
    """Who does not read stops who writes, and the router keeps next to nothing."""

    def test_client_that_does_not_read(self) -> None:
        directly, through = self.ways()
        count = 64 * MB // 65536

        async def stop() -> int:
            socket = await through.connect(f"/fast?id=fast&count={count}", max_queue=1, **WITHOUT)
            before = self.matrix.memory()
            last = -1
            while last != (last := (await plain(directly, "/progress"))[1]):
                await asyncio.sleep(0.5)
            self.assertGreater(last, 0)
            self.assertLess(last, IN_FLIGHT)
            self.assertLess(self.matrix.memory() - before, GROWTH)
            heard = [len(message) async for message in socket]
            return sum(heard)

        self.assertEqual(run(stop()), 64 * MB)

    def test_machine_that_does_not_read(self) -> None:
        directly, through = self.ways()
        message, count = bytes(65536), 64 * MB // 65536

        async def stop() -> int:
            socket = await through.connect("/slow?id=slow", **WITHOUT)
            before, sent = self.matrix.memory(), 0

            async def pour() -> None:
                nonlocal sent
                for _ in range(count):
                    await socket.send(message)
                    sent += len(message)

            pouring, last = asyncio.ensure_future(pour()), -1
            while last != (last := sent):
                await asyncio.sleep(0.5)
            self.assertGreater(last, 0)
            self.assertLess(last, IN_FLIGHT)
            self.assertLess(self.matrix.memory() - before, GROWTH)
            await plain(directly, "/drink")
            await pouring
            await socket.close()
            return int((await plain(directly, "/progress"))[0])

        self.assertEqual(run(stop()), count)


class SizeTests(WebSocketCase):
    def test_frame_of_8_gib(self) -> None:
        """Both ways at once, its first 64 MiB of it; the router holds nothing of it."""

        async def pour(way: Way, target: str) -> object:
            reader, writer = await way.open()
            head = (
                f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{way.token}\r\n"
            )
            writer.write(head.encode())
            await reader.readuntil(b"\r\n\r\n")
            first = await reader.readexactly(10)

            async def send() -> None:
                writer.write(b"\x82\xff" + struct.pack("!Q", 8 << 30) + b"\0\0\0\0")
                for _ in range(HUGE // MB):
                    writer.write(bytes(MB))
                    await writer.drain()
                writer.write(b"0123456789abcdef")
                await writer.drain()

            sending, left = asyncio.ensure_future(send()), HUGE
            while left:
                left -= len(await reader.read(MB))
            await sending
            writer.close()
            return first

        before = self.matrix.memory()
        [first, machine] = self.assert_same("huge", pour, f"/huge?bytes={HUGE}")
        grown = self.matrix.memory() - before
        self.assertEqual(first, b"\x82\x7f" + struct.pack("!Q", 8 << 30))
        self.assertEqual(machine["taken"], 14 + HUGE + 16)
        self.assertEqual(bytes.fromhex(machine["tail"]), b"0123456789abcdef")
        self.tell("a frame of 8 GiB", router_grew_kib=grown // 1024)
        self.assertLess(grown, GROWTH)
