"""Sends WebSocket messages, each connection the next when the last came back."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import uvloop

from bench.clients.common import Task, finish, ready

MESSAGE = 128
"""Bytes."""
WARM_SECONDS = 0.5


def frame() -> bytes:
    """A masked text frame."""
    mask, payload = os.urandom(4), b"m" * MESSAGE
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([0x81, 0x80 | 126]) + MESSAGE.to_bytes(2, "big") + mask + masked


class Echo(asyncio.Protocol):
    """One WebSocket. Only lengths are looked at: the backend's frames are all alike."""

    answers = 0
    lost = 0
    reply = 4 + MESSAGE
    """Bytes of an unmasked frame of this length."""

    def __init__(self, request: bytes, message: bytes, opened: asyncio.Future[None]) -> None:
        self._request = request
        self._message = message
        self._opened = opened
        self._read = 0
        self._answer = b""

    def connection_made(self, transport: Any) -> None:
        """Called by the loop."""
        self.write = transport.write
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if not self._opened.done():
            self._answer += data
            if b"\r\n\r\n" not in self._answer:
                return
            if self._answer[9:12] != b"101":
                raise SystemExit(f"unexpected answer: {self._answer[:300]!r}")
            self._opened.set_result(None)
            self.write(self._message)
            return
        self._read += len(data)
        if self._read == self.reply:
            self._read = 0
            Echo.answers += 1
            self.write(self._message)

    def connection_lost(self, reason: Exception | None) -> None:
        """Called by the loop."""
        Echo.lost += 1


async def main() -> None:
    """Measure for a while."""
    task = Task.from_arguments()
    loop, context = asyncio.get_running_loop(), task.context()
    for _ in range(task.connections):
        opened: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(
            lambda opened=opened: Echo(task.websocket(), frame(), opened),  # type: ignore[misc]
            "127.0.0.1",
            task.port,
            ssl=context,
            server_hostname="localhost",
        )
        await opened
    await asyncio.sleep(WARM_SECONDS)
    ready()
    answers, began = Echo.answers, loop.time()
    await asyncio.sleep(task.seconds)
    answers = Echo.answers - answers
    rate = answers / (loop.time() - began)
    if Echo.lost:
        raise SystemExit(f"{Echo.lost} WebSockets ended")
    finish({"rate": rate, "count": answers})


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
