"""A server without sockets: requests go in as bytes, answers are read by another parser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h11
from twisted.internet.task import Clock

from matrix.errors import MatrixError
from matrix.http import Exchange, Limits, ServerFactory
from matrix.net import Wheel
from matrix.testing.transport import FakeTransport

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@dataclass
class ReadAnswer:
    """One answer as a client reads it."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    interim: list[int] = field(default_factory=list)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)


def read_answer(
    data: bytes, method: bytes = b"GET", closed: bool = False
) -> tuple[ReadAnswer, bytes]:
    """
    The first answer in C{data} and what is left behind it, as h11 reads them.

    @param method: of the request that it answers.
    @param closed: whether the server closed the connection behind it.
    @raise h11.RemoteProtocolError: it is no proper answer.
    """
    client, answer = h11.Connection(h11.CLIENT), ReadAnswer()
    client.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    if closed:
        client.receive_data(b"")
    while True:
        event = client.next_event()
        if isinstance(event, h11.InformationalResponse):
            answer.interim.append(event.status_code)
        elif isinstance(event, h11.Response):
            answer.status, answer.headers = event.status_code, dict(event.headers)
        elif isinstance(event, h11.Data):
            answer.body += bytes(event.data)
        else:
            if isinstance(event, h11.EndOfMessage):
                answer.complete, answer.trailers = True, list(event.headers)
            return answer, client.trailing_data[0]


class BodyRecord:
    """A body sink that remembers."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False
        self.lost: MatrixError | None = None

    def body_data(self, data: bytes) -> None:
        assert data, "an empty piece of a body"
        assert not self.ended, "body behind its end"
        assert self.lost is None, "body behind its loss"
        self.data += data

    def body_end(self) -> None:
        assert not self.ended, "ended twice"
        assert self.lost is None, "ended after it was lost"
        self.ended = True

    def body_lost(self, error: MatrixError) -> None:
        assert not self.ended, "lost after it ended"
        assert self.lost is None, "lost twice"
        self.lost = error


class Served:
    """
    A server whose clock the test turns. Without a handler the exchanges gather unanswered
    in C{exchanges}; those that are over, in C{over}.
    """

    def __init__(
        self,
        handler: Callable[[Exchange], None] | None = None,
        limits: Limits | None = None,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.wheel = Wheel(self.clock)
        self.wheel.start()
        self.limits = limits or Limits()
        self.exchanges: list[Exchange] = []
        self.over: list[Exchange] = []
        self._handler = handler
        self.factory = ServerFactory(
            self._handle, self.wheel, self.limits, finished=self.over.append, **options
        )

    def _handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if self._handler is not None:
            self._handler(exchange)

    def connect(self, *data: bytes, **options: Any) -> FakeTransport:
        """A client's connection, over which it has sent C{data}."""
        transport = FakeTransport(**options).connect(self.factory.buildProtocol(None))
        transport.receive(*data)
        return transport

    def wait(self, seconds: float) -> None:
        """Let so much time pass, and every deadline that lies in it."""
        step = 0.25
        for _ in range(int(seconds / step)):
            self.clock.advance(step)
