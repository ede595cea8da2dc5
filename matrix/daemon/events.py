"""C{/v1/events}: changes of files as they happen, as server-sent events or on a WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from matrix.api import Api, EventStream
from matrix.daemon.feed import Event, Feed
from matrix.http.interfaces import Exchange, Request

HEARTBEAT = 25.0
"""Seconds between signs of life: under the 30 s after which some proxies end a silent
connection."""


class _StreamFollower:
    """A follower of the feed at the end of an event stream."""

    def __init__(self, exchange: Exchange, feed: Feed) -> None:
        self._stream = EventStream(exchange, closed=lambda _: feed.leave(self))
        self.begin = self._stream.begin
        self.heartbeat = self._stream.heartbeat
        self.end = self._stream.end

    def send(self, event: Event) -> None:
        self._stream.send(event.name, event.data, event.id)


class Events:
    """The handlers of C{/v1/events}, on a feed."""

    def __init__(self, feed: Feed, call_later: Callable[..., Any]) -> None:
        """
        @param call_later: C{call_later(seconds, function)}.
        """
        self._feed = feed
        self._call_later = call_later

    def register(self, api: Api) -> None:
        """Add the routes."""
        api.add("GET", "/v1/events", self.stream)
        api.add("GET", "/v1/events/ws", self.socket)

    async def stream(self, exchange: Exchange) -> None:
        """Server-sent events."""
        if exchange.request.method == b"HEAD":
            exchange.begin(200, [(b"content-type", b"text/event-stream; charset=utf-8")])
            exchange.end()
            return
        last_id = _last_id(exchange.request)
        follower = _StreamFollower(exchange, self._feed)
        follower.begin(self._feed.last_id if last_id is None else None)
        self._feed.follow(follower, last_id)

    async def socket(self, exchange: Exchange) -> None:
        """A WebSocket."""
        # Its library loads for 20 ms: a machine that wakes should answer first.
        from matrix.daemon.sockets import EventSocket

        socket = EventSocket(exchange.request, self._feed.leave, self._call_later)
        exchange.upgrade(socket.headers, socket)
        self._feed.follow(socket, _last_id(exchange.request))


def _last_id(request: Request) -> str | None:
    """The event that the client saw last: C{Last-Event-ID}, or C{?after=} where a client
    cannot set fields."""
    field = request.get(b"last-event-id")
    if field is not None:
        return field.decode("latin-1")
    return parse_qs(request.query.decode("latin-1")).get("after", [None])[-1]
