"""Server-sent events on an exchange, in bounded memory (WHATWG HTML section 9.2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from matrix.http.interfaces import Exchange

QUEUE_LIMIT = 256
"""Events that wait for a reader who has paused: some seconds of a lively source. A reader
further behind is let go of, and comes back with C{Last-Event-ID}."""

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    # Asks nginx and its kin, where one stands in front, to pass each event on at once.
    (b"x-accel-buffering", b"no"),
)

_BREAKS = "\r\n\0"


@implementer(IPushProducer)
class EventStream:
    """
    One reader of events. While the reader is slow events queue here, up to a limit; past
    it the connection is cut off.
    """

    def __init__(
        self,
        exchange: Exchange,
        closed: Callable[[EventStream], None] | None = None,
        limit: int = QUEUE_LIMIT,
    ) -> None:
        """
        @param closed: called once when the stream is over, whoever ended it.
        @param limit: how many events may wait for the reader.
        """
        self._exchange = exchange
        self._closed = closed
        self._limit = limit
        self._queue: deque[bytes] = deque()
        self._paused = False
        self.over = False

    def begin(self, id: str | None = None) -> None:
        """
        Send the head, and a first comment, so that a client sees the stream open.

        @param id: what the client is to come back with if no event reaches it; it sees no
            event of this.
        """
        self._exchange.on_gone(self._finish)
        self._exchange.begin(200, HEADERS)
        self._exchange.register_producer(self)
        self._exchange.write(b": open\n\n" if id is None else b"id: %b\n\n" % id.encode())

    def send(self, event: str, data: str, id: str | None = None) -> None:
        """
        Send an event. Nothing happens when the stream is over.

        @raise ValueError: C{event} or C{id} contains a line break or NUL.
        """
        if any(mark in (id or "") + event for mark in _BREAKS):
            raise ValueError("an event's name and id are one line each")
        head = f"event: {event}\n" if id is None else f"id: {id}\nevent: {event}\n"
        lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        body = "".join(f"data: {line}\n" for line in lines)
        self._deliver(f"{head}{body}\n".encode())

    def heartbeat(self) -> None:
        """Send a comment, which keeps idle timers on the way from running out. A paused
        reader needs none: bytes are under way to it."""
        if not self.over and not self._paused:
            self._exchange.write(b": beat\n\n")

    def end(self) -> None:
        """End the stream properly; what waits for the reader is sent first."""
        if self.over:
            return
        self._flush()
        self._exchange.end()
        self._finish()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._queue and not self._paused and not self.over:
            self._exchange.write(self._queue.popleft())

    def stopProducing(self) -> None:
        self._finish()

    def _deliver(self, frame: bytes) -> None:
        if self.over:
            return
        if not self._paused:
            self._exchange.write(frame)
        elif len(self._queue) < self._limit:
            self._queue.append(frame)
        else:
            self._exchange.abort()
            self._finish()

    def _flush(self) -> None:
        while self._queue:
            self._exchange.write(self._queue.popleft())

    def _finish(self) -> None:
        if self.over:
            return
        self.over = True
        self._queue.clear()
        if self._closed is not None:
            self._closed(self)
