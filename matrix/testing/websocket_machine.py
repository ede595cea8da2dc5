"""
A machine for tests of WebSockets: the websockets library's own server, which tells afterwards
what it saw of each connection.

Run by path: C{websocket_machine.py SOCKET}. The path of a handshake says what happens; its query
has an C{id} under which C{/outcome?id=...} tells the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

Query = dict[str, str]
Outcome = dict[str, Any]

PIECE = bytes(range(256)) * 256
"""64 KiB."""

SUBPROTOCOLS = (Subprotocol("chat.v2"), Subprotocol("chat.v1"))
"""The best first."""

KNOWN = ("sec-websocket-", "origin", "user-agent", "x-own")
"""The handshake's fields that a proxy has to pass as they are."""


def told(message: str | bytes) -> list[object]:
    """A message in short: what it is, its length in bytes, and its hash."""
    data = message.encode() if isinstance(message, str) else message
    return [type(message).__name__, len(data), hashlib.sha256(data).hexdigest()[:16]]


class Sink(asyncio.Protocol):
    """Takes a connection over from the library, which would keep a whole frame in memory."""

    def __init__(self) -> None:
        self.taken = 0
        self.tail = b""
        self.done = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.taken += len(data)
        self.tail = (self.tail + data)[-16:]

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.done.set_result(None)


class Machine:
    """The scenes, by path."""

    def __init__(self) -> None:
        self._outcomes: dict[str, asyncio.Future[Outcome]] = defaultdict(
            asyncio.get_running_loop().create_future
        )
        self._thirsty = asyncio.Event()
        self.taken = 0
        """Messages that were read in the scene C{slow}."""
        self.given = 0
        """Bytes that the library's transport took in the scene C{fast}."""

    async def __call__(self, socket: ServerConnection) -> None:
        request = socket.request
        assert request is not None
        url = urlsplit(request.path)
        query = dict(parse_qsl(url.query))
        outcome: Outcome = {"messages": []}
        with contextlib.suppress(ConnectionClosed):
            await getattr(self, f"scene_{url.path[1:]}")(socket, query, outcome)
        await socket.wait_closed()
        self._outcomes[query["id"]].set_result(outcome | _facts(socket, request))

    async def answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """What is asked for by plain requests; C{None} for a handshake to be accepted."""
        url = urlsplit(request.path)
        query = dict(parse_qsl(url.query))
        match url.path:
            case "/outcome":
                found = await asyncio.wait_for(self._outcomes[query["id"]], 20)
                return socket.respond(200, json.dumps(found))
            case "/progress":
                return socket.respond(200, json.dumps([self.taken, self.given]))
            case "/drink":
                self._thirsty.set()
                return socket.respond(200, "")
            case "/refuse":
                refusal = socket.respond(int(query["status"]), query["body"])
                refusal.headers["X-Why"] = "because"
                return refusal
            case "/healthz":
                return socket.respond(200, "")
            case _:
                return None

    async def scene_echo(self, socket: ServerConnection, query: Query, outcome: Outcome) -> None:
        """Every message goes back."""
        if "greeting" in query:
            await socket.send(query["greeting"] * int(query.get("times", "1")))
        async for message in socket:
            outcome["messages"].append(told(message))
            await socket.send(message)

    async def scene_hear(self, socket: ServerConnection, query: Query, outcome: Outcome) -> None:
        """Messages are only counted."""
        async for message in socket:
            outcome["messages"].append(told(message))

    async def scene_slow(self, socket: ServerConnection, query: Query, outcome: Outcome) -> None:
        """Nothing is read before C{/drink} is asked for."""
        await self._thirsty.wait()
        async for _ in socket:
            self.taken += 1

    async def scene_fast(self, socket: ServerConnection, query: Query, outcome: Outcome) -> None:
        """Messages of 64 KiB, as fast as they are taken."""
        for _ in range(int(query["count"])):
            await socket.send(PIECE)
            self.given += len(PIECE)
        await socket.close()

    async def scene_close(self, socket: ServerConnection, query: Query, outcome: Outcome) -> None:
        """We close first."""
        await socket.close(int(query["code"]), query.get("reason", ""))

    async def scene_ping(self, socket: ServerConnection, query: Query, outcome: Outcome) -> None:
        """We ping; whoever answers otherwise than with the same bytes is waited for in vain."""
        for payload in (b"", b"x", bytes(range(125))):
            await (await socket.ping(payload))
            outcome["messages"].append(payload.hex())
        await socket.close()

    async def scene_raw(self, socket: ServerConnection, query: Query, outcome: Outcome) -> None:
        """Bytes past the library, and then the connection's end as asked for."""
        transport: Any = socket.transport
        transport.write(bytes.fromhex(query.get("hex", "")))
        match query["end"]:
            case "close":
                transport.close()
            case "eof":
                transport.write_eof()
            case "reset":
                await asyncio.sleep(0.1)  # let what was written get there first
                transport.abort()

    async def scene_huge(self, socket: ServerConnection, query: Query, outcome: Outcome) -> None:
        """The beginning of one frame of 8 GiB goes out; whatever comes is counted."""
        sink, transport = Sink(), socket.transport
        transport.set_protocol(sink)
        transport.write(b"\x82\x7f" + (8 << 30).to_bytes(8, "big"))
        for _ in range(int(query["bytes"]) // len(PIECE)):
            transport.write(PIECE)
            while transport.get_write_buffer_size() > len(PIECE):
                await asyncio.sleep(0.001)
        await sink.done
        outcome |= {"taken": sink.taken, "tail": sink.tail.hex()}
        socket.connection_lost(None)


def _chosen(socket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next((name for name in SUBPROTOCOLS if name in offered), None)


def _facts(socket: ServerConnection, request: Request) -> Outcome:
    protocol = socket.protocol
    closes = {"rcvd": protocol.close_rcvd, "sent": protocol.close_sent}
    fields = [
        [name.lower(), value]
        for name, value in request.headers.raw_items()
        if name.lower().startswith(KNOWN) and name.lower() != "sec-websocket-key"
    ]
    return {
        **{name: close and [close.code, close.reason] for name, close in closes.items()},
        "failure": protocol.parser_exc and repr(protocol.parser_exc),
        "handshake": fields,
        "subprotocol": socket.subprotocol,
        "extensions": [repr(extension) for extension in protocol.extensions],
    }


async def main(path: str) -> None:
    """Serve until killed."""
    logging.disable()
    machine = Machine()
    serving = unix_serve(
        machine,
        path,
        process_request=machine.answer,
        select_subprotocol=_chosen,
        ping_interval=None,
        max_size=64 << 20,
        close_timeout=5,
    )
    async with serving as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
