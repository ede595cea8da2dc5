"""
A machine for tests of streaming: it counts what it could send and what it was sent, tells the
time in events, and answers on a WebSocket.

Run by path: C{stream_machine.py SOCKET}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from urllib.parse import parse_qsl, urlsplit

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

PIECE = bytes(range(256)) * 256
"""64 KiB."""

Query = dict[str, str]


class Machine:
    """Answers by path; one connection after another or many at once."""

    def __init__(self) -> None:
        self.sent = 0
        """Bytes of bodies that the socket took from us."""
        self.received = 0
        """Bytes of bodies that we read."""
        self._thirsty = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                url = urlsplit(head.split(b" ")[1].decode())
                query = dict(parse_qsl(url.query))
                if url.path == "/ws":
                    await self._socket(head, reader, writer)
                    break
                length = int(Query(_fields(head)).get("content-length", "0"))
                await self._answer(url.path, query, length, reader, writer)
        writer.close()

    async def _answer(
        self,
        path: str,
        query: Query,
        length: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        match path:
            case "/pour":
                await self._pour(writer, int(query["bytes"]))
            case "/swallow":
                await self._swallow(reader, writer, length)
            case "/drink":
                self._thirsty.set()
                _respond(writer, {})
            case "/events":
                await self._tell(writer, float(query["every"]), int(query["count"]))
            case _:
                _respond(writer, {"sent": self.sent, "received": self.received})

    async def _pour(self, writer: asyncio.StreamWriter, total: int) -> None:
        """Send so many bytes, as fast as they are taken."""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        for _ in range(total // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
            self.sent += len(PIECE)

    async def _swallow(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int
    ) -> None:
        """Read nothing of a body until C{/drink} is asked for."""
        await self._thirsty.wait()
        while length:
            data = await reader.read(min(length, len(PIECE)))
            length -= len(data)
            self.received += len(data)
        _respond(writer, {"received": self.received})

    async def _tell(self, writer: asyncio.StreamWriter, every: float, count: int) -> None:
        """Events that say when they were sent."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(count):
            data = b"data: %.6f\n\n" % time.time()
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
            await asyncio.sleep(every)
        writer.write(b"0\r\n\r\n")

    async def _socket(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A WebSocket that answers each message with the time at which it does."""
        protocol = ServerProtocol()
        protocol.receive_data(head)
        while data := await self._react(protocol, reader, writer):
            protocol.receive_data(data)

    @staticmethod
    async def _react(
        protocol: ServerProtocol, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                protocol.send_text(b"%.6f" % time.time())
        for data in protocol.data_to_send():
            if not data:  # both have said goodbye: the server closes first
                return b""
            writer.write(data)
        return await reader.read(65536)


def _fields(head: bytes) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return [(name.lower(), value.strip()) for name, _, value in pairs]


def _respond(writer: asyncio.StreamWriter, content: object) -> None:
    body = json.dumps(content).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def main(path: str) -> None:
    """Serve until killed."""
    machine = Machine()
    async with await asyncio.start_unix_server(machine.serve, path, limit=65536) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
