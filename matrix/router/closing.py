"""A WebSocket that is accepted only to be told why it cannot be served."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol

LINGER = 2.0
"""Seconds for the client to take note (RFC 6455 section 7.1.1)."""


class WebSocketGoodbye(Protocol):
    """Sends one close frame, and ends the connection when the client answers or waits."""

    transport: Any

    def __init__(self, clock: IReactorTime, frame: bytes) -> None:
        self._clock = clock
        self._frame = frame

    def connectionMade(self) -> None:
        self.transport.write(self._frame)
        self._clock.callLater(LINGER, self.transport.loseConnection)

    def dataReceived(self, data: bytes) -> None:
        if data[0] & 0x0F == 0x8:  # the client's own close frame
            self.transport.loseConnection()
