"""What tests of WebSockets share: a scenario runs with the machine alone, and through Matrix."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from pprint import pformat
from typing import Any

from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import InvalidMessage
from websockets.http11 import Response
from websockets.streams import StreamReader

from matrix.testing.running_case import MatrixCase
from matrix.testing.wire import run

PROGRAM = Path(__file__).with_name("websocket_machine.py")
COMMAND = shlex.join([sys.executable, str(PROGRAM), "{socket}"])

SECONDS = 20.0
"""For one scenario."""

KEY = "dGhlIHNhbXBsZSBub25jZQ=="

PASSED = ("sec-websocket-", "x-why", "content-type")
"""The fields of a handshake's answer that a proxy has to pass as they are."""

CLOSE = b"\x88\x80\0\0\0\0"
"""A client's close frame that gives no code."""

_numbers = count(1)

Step = bytes | int | str
"""Bytes to send, how many frames to wait for in all, or an end: C{eof} or C{reset}."""


@dataclass(frozen=True)
class Way:
    """How to reach the machine: by its own socket, or through the public listener."""

    name: str
    open: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
    connect: Callable[..., connect]
    token: str


Scenario = Callable[[Way, str], Awaitable[object]]
"""Goes one way, with a target of its own; what it returns must be the same both ways."""


class WebSocketCase(MatrixCase):
    """One Matrix whose machines are the websockets library's server."""

    SETTINGS = {"local_command": COMMAND}

    def ways(self) -> list[Way]:
        """The two ways to alice's machine, which is awake then."""
        assert self.ask("alice", "GET", "/healthz").status == 200
        home = self.matrix.state / "machines" / self.matrix.user_id("alice")
        record = json.loads((home / "machine.json").read_text())
        path = record["address"].removeprefix("unix:")
        door, token = self.matrix.door, self.matrix.token("alice")
        fields = {"Authorization": f"Bearer {token}"}

        def directly(target: str, **options: Any) -> connect:
            return unix_connect(path, f"ws://localhost{target}", **_OPTIONS | options)

        def through(target: str, **options: Any) -> connect:
            url = f"wss://{door.host}:{door.port}{target}"
            more = options.pop("additional_headers", {}) | fields
            options |= {"additional_headers": more, "ssl": door.context, "proxy": None}
            return connect(url, **_OPTIONS | options)

        return [
            Way("directly", lambda: asyncio.open_unix_connection(path), directly, ""),
            Way(
                "through Matrix",
                lambda: asyncio.open_connection(door.host, door.port, ssl=door.context),
                through,
                f"Authorization: Bearer {token}\r\n",
            ),
        ]

    def assert_same(
        self, name: str, scenario: Scenario, target: str, *, opens: bool = True
    ) -> list[Any]:
        """
        Run a scenario both ways.

        @param target: of the handshake; an C{id} is added to its query.
        @param opens: whether the handshake succeeds, so that the machine has something to tell.
        @return: what the client and the machine saw, which is the same.
        """

        ways = self.ways()

        async def both() -> list[list[Any]]:
            return [await _once(way, scenario, target, opens) for way in ways]

        directly, through = run(asyncio.wait_for(both(), 2 * SECONDS), 3 * SECONDS)
        assert directly == through, f"{name}: {pformat(directly)} became {pformat(through)}"
        return through


async def _once(way: Way, scenario: Scenario, target: str, opens: bool) -> list[Any]:
    mark = f"id={next(_numbers)}"
    seen = await scenario(way, f"{target}{'&' if '?' in target else '?'}{mark}")
    return [seen, await plain(way, f"/outcome?{mark}") if opens else None]


_OPTIONS: dict[str, Any] = {
    "ping_interval": None,
    "max_size": None,
    "close_timeout": 5,
    "user_agent_header": "test",
}


async def plain(way: Way, target: str) -> Any:
    """The JSON that a plain request is answered with."""
    reader, writer = await way.open()
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{way.token}Connection: close\r\n\r\n"
    writer.write(head.encode())
    answer = parsed_head(await asyncio.wait_for(reader.read(), SECONDS))[0]
    writer.transport.abort()
    return json.loads(answer.body) if answer.body else None


def parsed_head(data: bytes) -> tuple[Response, bytes]:
    """A response, as the websockets library reads it, and what is behind it."""
    stream = StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    steps = Response.parse(stream.read_line, stream.read_exact, stream.read_to_eof)
    try:
        next(steps)
    except StopIteration as done:
        return done.value, bytes(stream.buffer)
    except EOFError as error:
        raise InvalidMessage(f"no response: {data!r}") from error
    raise InvalidMessage(f"the response goes on: {data!r}")


def raw(*steps: Step, fields: str = "", key: str = KEY, behind: bytes = b"") -> Scenario:
    """
    A client that follows no rules: its handshake, then the steps, then it reads to the end,
    and answers a close frame unless it has sent L{CLOSE}.

    @param fields: further lines of the handshake.
    @param behind: bytes that go out in one piece with the handshake.
    """

    async def scenario(way: Way, target: str) -> object:
        reader, writer = await way.open()
        head = (
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"{fields}{way.token}\r\n"
        )
        writer.write(head.encode() + behind)
        seen = Seen(reader)
        await seen.until(lambda: b"\r\n\r\n" in seen.data)
        if not seen.data.startswith(b"HTTP/1.1 101 "):
            await seen.until(seen.is_refused)
            writer.transport.abort()
            return _told(parsed_head(seen.data)[0])
        for step in steps:
            await _take(step, seen, writer)
        if not {CLOSE, "eof", "reset"} & set(steps):
            await seen.until(seen.is_closing)
            writer.write(CLOSE)
        await seen.until(lambda: False)
        writer.transport.abort()
        return seen.summary()

    return scenario


async def _take(step: Step, seen: Seen, writer: asyncio.StreamWriter) -> None:
    if isinstance(step, bytes):
        writer.write(step)
        await asyncio.sleep(0)
    elif isinstance(step, int):
        await seen.until(lambda: len(seen.frames()) >= step)
    elif step == "reset":
        writer.transport.abort()
    else:
        writer.close()


class Seen:
    """What a client without rules was sent."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.data = b""
        self._reader = reader

    async def until(self, enough: Callable[[], bool]) -> None:
        """Read on until it is enough, or over."""
        while not enough():
            try:
                data = await asyncio.wait_for(self._reader.read(1 << 18), SECONDS)
            except ConnectionError:
                return
            if not data:
                return
            self.data += data

    def frames(self) -> Sequence[tuple[int, bytes]]:
        """The first byte and the payload of each frame; a last one that is not whole is left
        as it is, under -1."""
        rest = self.data.partition(b"\r\n\r\n")[2]
        found = []
        while rest:
            size, start = (rest[1] & 0x7F if len(rest) > 1 else 0), 2
            if size > 125:
                start = 4 if size == 126 else 10
                size = int.from_bytes(rest[2:start], "big")
            start += 4 if rest[1:2] >= b"\x80" else 0
            if len(rest) < start + size:
                found.append((-1, rest))
                break
            found.append((rest[0], rest[start : start + size]))
            rest = rest[start + size :]
        return found

    def is_closing(self) -> bool:
        """Whether a close frame is here."""
        return any(first & 0x0F == 8 for first, _ in self.frames() if first >= 0)

    def is_refused(self) -> bool:
        """Whether a whole answer is here: the connection may be kept for another request."""
        try:
            parsed_head(self.data)
        except InvalidMessage:
            return False
        return True

    def summary(self) -> object:
        """What must be the same: how the pieces were cut, and how the answers to pings and to
        messages that came together were mixed, is a matter of time."""
        head = self.data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        frames = self.frames()
        return [
            _told(parsed_head(head)[0]),
            [frame for frame in frames if not frame[0] & 8 or frame[0] < 0],
            [frame for frame in frames if frame[0] & 8 and frame[0] >= 0],
        ]


def _told(answer: Response) -> object:
    fields = sorted(
        (name.lower(), value)
        for name, value in answer.headers.raw_items()
        if name.lower().startswith(PASSED)
    )
    return [answer.status_code, answer.reason_phrase, fields, bytes(answer.body or b"")]
