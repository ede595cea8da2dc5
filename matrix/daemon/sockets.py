"""Events over a WebSocket (RFC 6455), on a connection that an exchange has handed over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from websockets.frames import CloseCode
from websockets.http11 import Request as UpgradeRequest
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from zope.interface import implementer

from matrix.daemon.feed import Event
from matrix.errors import BadRequest, Forbidden, UpgradeRequired
from matrix.http.interfaces import HeaderList, Request

QUEUE_LIMIT = 256
"""Events that wait for a reader who has paused, as on an event stream."""

MESSAGE_LIMIT = 4096
"""Bytes of a message from the client. Nothing is expected; more is closed with 1009."""

CLOSE_TIMEOUT = 10.0
"""Seconds for the client to answer a close frame, after which the connection is cut off."""


@implementer(IPushProducer)
class EventSocket(Protocol):
    """A follower of the feed (L{matrix.daemon.feed.Follower}) at the end of a WebSocket."""

    transport: Any

    def __init__(
        self,
        request: Request,
        gone: Callable[[EventSocket], None],
        call_later: Callable[..., Any],
    ) -> None:
        """
        Answer the handshake; its header fields are then in C{headers}.

        @param gone: called once when the socket takes no more events.
        @param call_later: C{call_later(seconds, function)}.
        @raise UpgradeRequired: the request asks for no WebSocket.
        @raise BadRequest: it asks wrongly.
        """
        self._gone = gone
        self._call_later = call_later
        self._socket = ServerProtocol(max_size=MESSAGE_LIMIT)
        self._queue: deque[str] = deque()
        self._paused = False
        self._over = False
        self._deadline: Any = None
        self.headers = self._shake_hands(request)

    def _shake_hands(self, request: Request) -> HeaderList:
        # The library wants to read the head itself: given it as bytes, it parses them anew.
        lines = [b"%b: %b\r\n" % field for field in request.headers]
        self._socket.receive_data(b"GET %b HTTP/1.1\r\n%b\r\n" % (request.target, b"".join(lines)))
        asked = self._socket.events_received()
        if not asked:
            raise BadRequest("the head is not one of a WebSocket handshake", reason="websocket")
        response = self._socket.accept(cast(UpgradeRequest, asked[0]))
        detail = (response.body or b"").decode("utf-8", "replace").partition("\n")[0]
        if response.status_code == 426:
            raise UpgradeRequired(detail, headers=[(b"upgrade", b"websocket")])
        if response.status_code == 403:
            raise Forbidden(detail)
        if response.status_code != 101:
            raise BadRequest(detail, reason="websocket")
        self._socket.send_response(response)
        self._socket.data_to_send()  # The exchange sends the 101 itself.
        return [(k.encode("latin-1"), v.encode("latin-1")) for k, v in response.headers.raw_items()]

    # The connection

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self._socket.receive_data(data)
        self._socket.events_received()  # A client has nothing to say; pings answer themselves.
        self._pass_on()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self._leave()
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._queue and not self._paused and not self._over:
            self._send(self._queue.popleft())

    def stopProducing(self) -> None:
        self._leave()

    # The feed

    def send(self, event: Event) -> None:
        if self._over:
            return
        if not self._paused:
            self._send(event.data)
        elif len(self._queue) < QUEUE_LIMIT:
            self._queue.append(event.data)
        else:
            self.close(CloseCode.TRY_AGAIN_LATER, "too slow: come back with ?after=ID")

    def heartbeat(self) -> None:
        if not self._over and not self._paused:
            self._socket.send_ping(b"")
            self._pass_on()

    def end(self) -> None:
        self.close(CloseCode.SERVICE_RESTART, "the machine stops")

    def close(self, code: int, reason: str) -> None:
        """Close properly; cut off a client that does not answer."""
        if self._over:
            return
        self._leave()
        self._socket.send_close(code, reason)
        self._pass_on()
        self._deadline = self._call_later(CLOSE_TIMEOUT, self.transport.abortConnection)

    def _send(self, text: str) -> None:
        self._socket.send_text(text.encode("utf-8"))
        self._pass_on()

    def _pass_on(self) -> None:
        for data in self._socket.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self.transport.loseConnection()
        if self._socket.state is not OPEN:
            self._leave()

    def _leave(self) -> None:
        if not self._over:
            self._over = True
            self._queue.clear()
            self._gone(self)
