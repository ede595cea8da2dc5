"""
The program behind every proxy: small, fast, and no judge of what it gets.

Run by path with nothing but uvloop: C{backend.py [--core N] ADDRESS...}, where an ADDRESS is a
socket's path or a port of 127.0.0.1. It knows well-formed requests of the bench only::

    GET /1k               1 KB
    POST /sink            reads the body, answers with its size
    GET /download?BYTES   that many bytes
    GET /events           SSE: each second an event that carries time.monotonic()
    GET /echo             WebSocket echo of messages up to 125 bytes a frame, or 126-65535
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

TICKS = 100
"""The streams take turns in a second: this many groups, each with its own moment."""

BLOCK = memoryview(bytes(256 * 1024))
"""What downloads are made of."""

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

KILOBYTE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: bench\r\n"
    b"Date: Mon, 23 Nov 2026 14:00:00 GMT\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024
)
READ = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b"
DOWNLOAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
)
EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

streams: list[set[Connection]] = [set() for _ in range(TICKS)]


class Connection(asyncio.Protocol):
    """One connection from a proxy."""

    made = 0

    def connection_made(self, transport: Any) -> None:
        """Called by the loop."""
        self.transport = transport
        self.write = transport.write
        self.left = 0
        self.size = 0
        self.to_send = 0
        self.head = b""
        self.group: set[Connection] | None = None
        self.receive: Callable[[bytes], None] = self.request

    def connection_lost(self, reason: Exception | None) -> None:
        """Called by the loop."""
        self.to_send = 0
        if self.group is not None:
            self.group.discard(self)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.receive(data)

    def request(self, data: bytes) -> None:
        """The beginning of a request, or more of its head."""
        if data.startswith(b"GET /1k") and data.endswith(b"\r\n\r\n"):
            self.write(KILOBYTE)
            return
        self.head += data
        end = self.head.find(b"\r\n\r\n")
        if end < 0:
            return
        head, body = self.head[:end], self.head[end + 4 :]
        self.head = b""
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/sink"):
            self.upload(head, body)
        elif path.startswith(b"/download?"):
            self.to_send = int(path[10:])
            self.write(DOWNLOAD % self.to_send)
            self.resume_writing()
        elif path.startswith(b"/events"):
            self.subscribe()
        elif path.startswith(b"/echo"):
            key = _field(head, b"sec-websocket-key") + WEBSOCKET_GUID
            self.write(SWITCH % b64encode(hashlib.sha1(key).digest()))
            self.receive = self.frames
        else:
            self.write(KILOBYTE if path.startswith(b"/1k") else MISSING)

    def upload(self, head: bytes, body: bytes) -> None:
        """A body of known length, or a chunked one that ends in the usual way."""
        self.size = 0
        length = _field(head, b"content-length")
        self.left = int(length) if length else -1
        self.receive = self.body if length else self.chunks
        if body or self.left == 0:
            self.receive(body)

    def body(self, data: bytes) -> None:
        """Part of a body."""
        self.size += len(data)
        if self.size >= self.left:
            self.finish()

    def chunks(self, data: bytes) -> None:
        """Part of a chunked body; only its end is looked for."""
        self.size += len(data)
        self.head = (self.head + data)[-5:]
        if self.head == b"0\r\n\r\n":
            self.head = b""
            self.finish()

    def finish(self) -> None:
        """Answer an upload."""
        text = b"%d" % self.size
        self.write(READ % (len(text), text))
        self.receive = self.request

    def pause_writing(self) -> None:
        """Called by the loop: the download waits."""
        self.paused = True

    def resume_writing(self) -> None:
        """Called by the loop: the download goes on."""
        self.paused = False
        while self.to_send and not self.paused:
            block = BLOCK[: self.to_send]
            self.to_send -= len(block)
            self.write(block)

    def subscribe(self) -> None:
        """Begin a stream."""
        self.write(EVENTS)
        Connection.made += 1
        self.group = streams[Connection.made % TICKS]
        self.group.add(self)

    def frames(self, data: bytes) -> None:
        """Echo whole masked frames; one that came in parts waits for the rest."""
        data = self.head + data if self.head else data
        at = 0
        answer = []
        while len(data) - at >= 6:
            length, start = data[at + 1] & 127, at + 2
            if length == 126:
                length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            if len(data) < start + 4 + length:
                break
            mask = int.from_bytes((data[start : start + 4] * (length // 4 + 1))[:length], "big")
            payload = int.from_bytes(data[start + 4 : start + 4 + length], "big") ^ mask
            answer.append(data[at : at + 1] + bytes([data[at + 1] & 127]) + data[at + 2 : start])
            answer.append(payload.to_bytes(length, "big"))
            at = start + 4 + length
        self.head = data[at:]
        if answer:
            self.write(b"".join(answer))


def _field(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""


async def events() -> None:
    """Send each group of streams its event at its moment of the second."""
    start = time.monotonic()
    turn = 0
    while True:
        turn += 1
        await asyncio.sleep(max(0.0, start + turn / TICKS - time.monotonic()))
        group = streams[turn % TICKS]
        if group:
            event = b"data: %.6f\n\n" % time.monotonic()
            chunk = b"%x\r\n%b\r\n" % (len(event), event)
            for connection in group:
                connection.write(chunk)


async def main(addresses: list[str]) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    servers = []  # kept: uvloop closes a server that nobody refers to
    for address in addresses:
        if address.startswith("/"):
            if os.path.exists(address) and stat.S_ISSOCK(os.stat(address).st_mode):
                Path(address).unlink()
            server = await loop.create_unix_server(Connection, address, backlog=4096)
        else:
            server = await loop.create_server(Connection, "127.0.0.1", int(address), backlog=4096)
        servers.append(server)
    await events()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--core"]:
        os.sched_setaffinity(0, {int(arguments[1])})
        arguments = arguments[2:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(arguments))
