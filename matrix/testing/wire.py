"""Clients of the public listener, for acceptance tests: TLS, and HTTP/1.1 as h11 reads it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import h11
import uvloop

READ = 256 * 1024
"""Bytes asked for at once."""

SECONDS = 60.0
"""For one answer, unless a test gives another limit."""

Headers = list[tuple[str, str]]
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """A response, its header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    interim: list[int] = field(default_factory=list)

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class Wire:
    """
    One connection.

    h11 checks the framing: a body that is cut short, or a stream that ends without its last
    chunk, raises C{h11.RemoteProtocolError}.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, token: str
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=256 * 1024)
        self._headers: Headers = [("Host", host)]
        if token:
            self._headers.append(("Authorization", f"Bearer {token}"))

    async def begin(self, method: str, target: str, headers: Headers | None = None) -> None:
        """Send a request's head."""
        head = [*self._headers, *(headers or [])]
        await self._send(h11.Request(method=method, target=target, headers=head))

    async def feed(self, data: bytes) -> None:
        """Send a part of its body; returns when there is room for more."""
        await self._send(h11.Data(data=data))

    async def finish(self) -> None:
        """The request is complete."""
        await self._send(h11.EndOfMessage())

    async def _send(self, event: Any) -> None:
        data = self._http.send(event)
        if data:
            self.writer.write(data)
            await self.writer.drain()

    async def head(self) -> Answer:
        """The head of the answer."""
        interim = []
        while isinstance(event := await self._event(), h11.InformationalResponse):
            interim.append(event.status_code)
        assert isinstance(event, h11.Response), event
        headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
        return Answer(event.status_code, headers, interim=interim)

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes, to its proper end."""
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self.reader.read(READ))
        return event

    async def request(
        self, method: str, target: str, headers: Headers | None = None, body: bytes = b""
    ) -> Answer:
        """One request and its answer."""
        more = [*(headers or [])]
        if body:
            more.append(("Content-Length", str(len(body))))
        await self.begin(method, target, more)
        if body:
            await self.feed(body)
        await self.finish()
        head = await self.head()
        content = b"".join([part async for part in self.parts()])
        self.renew()
        return Answer(head.status, head.headers, content, head.interim)

    def expect(self, received: bytes) -> None:
        """Read the answer to a request that was written past us, as a GET without a body.

        @param received: what has come of it already.
        """
        head = h11.Request(method="GET", target="/", headers=[("Host", "h")])
        self._http.send(head)
        self._http.send(h11.EndOfMessage())
        if received:
            self._http.receive_data(received)

    @property
    def unread(self) -> bytes:
        """What came after the answer."""
        return self._http.trailing_data[0]

    def renew(self) -> bool:
        """Be ready for the next request, now that both sides are done with this one; whether
        they left the connection open for it."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        return False

    def close(self) -> None:
        """End the connection at once."""
        self.writer.transport.abort()


@dataclass(frozen=True)
class Door:
    """The public listener of a running Matrix."""

    host: str
    port: int
    context: ssl.SSLContext

    async def open(self, token: str = "", address: str = "") -> Wire:
        """
        A connection of its own.

        @param address: of 127.0.0.0/8, which it comes from; any that there is, if empty.
        """
        # Several addresses for one name are tried one after the other.
        reader, writer = await asyncio.open_connection(
            "127.0.0.1" if address else self.host,
            self.port,
            ssl=self.context,
            server_hostname=self.host,
            local_addr=(address, 0) if address else None,
            limit=READ,
        )
        return Wire(reader, writer, f"{self.host}:{self.port}", token)

    @asynccontextmanager
    async def wire(self, token: str = "") -> AsyncIterator[Wire]:
        """A connection, closed at the end."""
        wire = await self.open(token)
        try:
            yield wire
        finally:
            wire.close()

    async def request(
        self,
        method: str,
        target: str,
        token: str = "",
        headers: Headers | None = None,
        body: bytes = b"",
    ) -> Answer:
        """One request on a connection of its own."""
        async with self.wire(token) as wire:
            return await wire.request(method, target, headers, body)

    def ask(self, *args: Any, seconds: float = SECONDS, **kwargs: Any) -> Answer:
        """As L{request}; blocks."""
        return run(self.request(*args, **kwargs), seconds)


def run(work: Coroutine[Any, Any, T], seconds: float = SECONDS) -> T:
    """Run a coroutine of asyncio's to its end, in a loop of its own."""
    # With a factory the runner leaves the thread's current loop, the reactor's, alone.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(work, seconds))
