"""
A machine for storms: what it answers can be told from every other answer, and it misbehaves
in every way that it is asked to.

Run by path: C{machine.py SOCKET USER DAEMONS WORD...}. For a user among DAEMONS (ids with
commas between) it becomes the command of the further words instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.server import ServerProtocol

PIECE = 32 * 1024
"""Bytes written at once: half of what may be unsent before somebody is paused."""


def content(user: str, nonce: str, size: int) -> bytes:
    """The one right body for a request."""
    return random.Random(f"{user} {nonce}").randbytes(size)


@dataclass
class Request:
    """One request, its body still unread."""

    path: str
    query: dict[str, str]
    method: str
    fields: dict[str, str]
    head: bytes

    @property
    def nonce(self) -> str:
        """What no other request has."""
        return self.query.get("nonce", "")

    def number(self, name: str, default: int = 0) -> int:
        """A parameter."""
        return int(self.query.get(name, default))


class Connection:
    """Serves one request after another."""

    def __init__(
        self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._user = user
        self._reader = reader
        self._writer = writer
        self._answers: dict[str, Callable[[Request], Awaitable[bool | None]]] = {
            "/give": self._give,
            "/digest": self._digest,
            "/echo": self._echo,
            "/early": self._early,
            "/stall": self._stall,
            "/shut": self._shut,
            "/half": self._half,
            "/garbage": self._garbage,
            "/die": self._die,
            "/events": self._events,
            "/ws": self._websocket,
        }

    async def serve(self) -> None:
        """Until one side has had enough."""
        try:
            while True:
                request = _parse(await self._reader.readuntil(b"\r\n\r\n"))
                if await self._answers.get(request.path, self._digest)(request):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the router closed it, as it may
        finally:
            self._writer.close()

    # bodies

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """What the client sends."""
        reader, fields = self._reader, request.fields
        if "100-continue" in fields.get("expect", ""):
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" not in fields.get("transfer-encoding", ""):
            left = int(fields.get("content-length", "0"))
            while left:
                yield (data := await reader.readexactly(min(left, PIECE)))
                left -= len(data)
            return
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")

    async def _begin(self, request: Request, *lines: bytes) -> None:
        mark = b"X-Storm: %b %b" % (self._user.encode(), request.nonce.encode())
        head = b"\r\n".join((b"HTTP/1.1 200 OK", mark, *lines))
        await self._write(head + b"\r\n\r\n")

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _chunk(self, data: bytes) -> None:
        await self._write(b"%x\r\n%b\r\n" % (len(data), data))

    # what is right

    async def _give(self, request: Request) -> bool:
        """So many bytes, in one of the three framings; cut short if asked to."""
        async for _ in self._body(request):
            pass
        body = content(self._user, request.nonce, request.number("size"))
        how, end = request.query.get("how", "length"), request.number("cut", len(body))
        length = b"Content-Length: %d" % len(body)
        framing = {"length": length, "chunked": b"Transfer-Encoding: chunked"}
        await self._begin(request, framing.get(how, b"Connection: close"))
        if request.method == "HEAD":
            return False
        for start in range(0, end, PIECE):
            data = body[start : min(end, start + PIECE)]
            await (self._chunk(data) if how == "chunked" else self._write(data))
            await asyncio.sleep(request.number("pause") / 1000)
        if how == "chunked" and end == len(body):
            await self._write(b"0\r\n\r\n")
        return how == "close" or end < len(body)

    async def _digest(self, request: Request) -> None:
        """What came, told by its hash."""
        digest, length = hashlib.sha256(), 0
        async for data in self._body(request):
            digest.update(data)
            length += len(data)
        told = {"user": self._user, "length": length, "sha256": digest.hexdigest()}
        body = json.dumps(told).encode()
        await self._begin(request, b"Content-Length: %d" % len(body))
        await self._write(body)

    async def _echo(self, request: Request) -> None:
        """What comes goes back at once."""
        await self._begin(request, b"Transfer-Encoding: chunked")
        async for data in self._body(request):
            await self._chunk(data)
        await self._write(b"0\r\n\r\n")

    async def _early(self, request: Request) -> bool:
        """An answer while the body is under way, which nobody reads."""
        body = content(self._user, request.nonce, request.number("size"))
        await self._begin(request, b"Connection: close", b"Content-Length: %d" % len(body))
        await self._write(body)
        return await self._stall(request)  # a close now would cost the client its answer

    # what is wrong

    async def _stall(self, request: Request) -> bool:
        while await self._reader.read(PIECE):
            pass
        return True

    async def _shut(self, request: Request) -> bool:
        return True

    async def _half(self, request: Request) -> bool:
        await self._write(b"HTTP/1.1 200 OK\r\nContent-Le")
        return True

    async def _garbage(self, request: Request) -> bool:
        await self._write(content("garbage", request.nonce, 500))
        return True

    async def _die(self, request: Request) -> bool:
        os._exit(3)

    # streams

    async def _events(self, request: Request) -> None:
        await self._begin(
            request, b"Content-Type: text/event-stream", b"Transfer-Encoding: chunked"
        )
        for number in range(request.number("count")):
            await self._chunk(f"data: {self._user} {request.nonce} {number}\n\n".encode())
            await asyncio.sleep(request.number("every") / 1000)
        await self._write(b"0\r\n\r\n")

    async def _websocket(self, request: Request) -> bool:
        """Says whose it is, then echoes."""
        protocol = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()])
        protocol.receive_data(request.head)
        while True:
            for event in protocol.events_received():
                if isinstance(event, Handshake):
                    protocol.send_response(protocol.accept(event))
                    protocol.send_text(f"{self._user} {request.nonce}".encode())
                elif isinstance(event, Frame):
                    _echo_frame(protocol, event)
            for data in protocol.data_to_send():
                if not data:
                    return True
                await self._write(data)
            if not (data := await self._reader.read(PIECE)):
                return True
            protocol.receive_data(data)


def _echo_frame(protocol: ServerProtocol, frame: Frame) -> None:
    match frame.opcode:
        case Opcode.TEXT:
            protocol.send_text(frame.data, frame.fin)
        case Opcode.BINARY:
            protocol.send_binary(frame.data, frame.fin)
        case Opcode.CONT:
            protocol.send_continuation(frame.data, frame.fin)


def _parse(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    url = urlsplit(target)
    pairs = (line.partition(":") for line in lines)
    fields = {name.lower(): value.strip() for name, _, value in pairs}
    return Request(url.path, dict(parse_qsl(url.query)), method, fields, head)


async def main(path: str, user: str) -> None:
    """Serve until killed."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(user, reader, writer).serve()

    server = await asyncio.start_unix_server(connected, path, limit=4 * PIECE)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _end, path)
    async with server:
        await server.serve_forever()


def _end(path: str) -> None:
    os.unlink(path)
    sys.exit()


if __name__ == "__main__":
    if sys.argv[2] in sys.argv[3].split(","):
        os.execv(sys.argv[4], sys.argv[4:])
    asyncio.run(main(*sys.argv[1:3]))
