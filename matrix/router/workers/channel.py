"""Messages between the supervisor and a worker: JSON, a line each, over a socket of their own."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes: what a worker counted takes a hundred kilobytes."""
LETTER_SECONDS = 30.0
"""For the first message to arrive whole; it was sent before the worker was started."""

_LENGTH = struct.Struct("!I")

Message = Mapping[str, Any]


class Lines(LineOnlyReceiver):
    """One end of a socket that carries lines."""

    delimiter = b"\n"
    MAX_LENGTH = LINE_LIMIT

    def __init__(self, heard: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._heard = heard
        self._lost = lost

    def say(self, line: bytes) -> None:
        """Send a line."""
        self.sendLine(line)  # type: ignore[no-untyped-call]

    def hang_up(self) -> None:
        """Close, once everything is sent."""
        assert self.transport is not None
        self.transport.loseConnection()

    def lineReceived(self, line: bytes) -> None:
        self._heard(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost()


class _LinesFactory(Factory):
    noisy = False

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def buildProtocol(self, addr: object) -> Lines:
        return self._lines


def read_lines(
    reactor: Any,
    end: socket.socket,
    heard: Callable[[bytes], None],
    lost: Callable[[], None] = lambda: None,
) -> Lines:
    """
    Read lines from a socket, which is the reactor's from now on.

    @param reactor: provides C{IReactorSocket}.
    """
    lines = Lines(heard, lost)
    end.setblocking(False)
    reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _LinesFactory(lines))
    end.close()
    return lines


class Channel:
    """One end of the conversation."""

    def __init__(
        self,
        reactor: Any,
        end: socket.socket,
        heard: Callable[[Message], None],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """
        @param lost: called when the other end is gone.
        """
        self._hear = heard
        self._gone = lost
        self.open = True
        self._closed: Deferred[None] = Deferred()
        self._lines = read_lines(reactor, end, self._heard, self._lost)

    def send(self, kind: str, **fields: object) -> None:
        """Say something; nothing happens if nobody is there any more."""
        if self.open:
            self._lines.say(json.dumps({"kind": kind, **fields}).encode("ascii"))

    def close(self) -> Deferred[None]:
        """Say no more. Fires once all that was said is sent, or nobody is there to take it."""
        if self.open:
            self.open = False
            self._lines.hang_up()
        return self._closed

    def _heard(self, line: bytes) -> None:
        self._hear(json.loads(line))

    def _lost(self) -> None:
        was_open, self.open = self.open, False
        if was_open:
            self._gone()
        if not self._closed.called:  # given up
            self._closed.callback(None)


def send_letter(end: socket.socket, content: bytes) -> None:
    """Put the first message, of any length, into a socket whose other end is not read yet."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(content) + 65536)
    end.setblocking(False)
    end.sendall(_LENGTH.pack(len(content)) + content)


def read_letter(end: socket.socket) -> bytes:
    """
    Take the first message, and nothing that follows it. B{Blocks.}

    @raise ConnectionError: the other end is gone.
    """
    end.settimeout(LETTER_SECONDS)
    (length,) = _LENGTH.unpack(_exactly(end, _LENGTH.size))
    return _exactly(end, length)


def _exactly(end: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        part = end.recv(length - len(content))
        if not part:
            raise ConnectionError("the supervisor is gone")
        content += part
    return content
