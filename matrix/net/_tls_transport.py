"""TLS on a connection of the event loop, without the loop's own layer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IProtocol, IPushProducer, ITransport
from zope.interface import implementer

from matrix.net._transport import ARRIVED, Adapter

RECORD_MAX = 16 * 1024
"""Bytes of plain text in one TLS record (RFC 8446 section 5.1)."""

WRITE_SLICE = 64 * 1024
"""Bytes encrypted at once: OpenSSL keeps the buffer of the largest for the connection's life."""

SHUTDOWN_TIMEOUT = 60.0
"""Seconds for a TLS peer to take what is unsent and to close its side, before the socket is
closed without: the end of an answer is lost then to a client that reads slowly."""

PLAIN_HTTP = "HTTP_REQUEST"
"""What OpenSSL finds wrong with a handshake that begins like HTTP."""

_ADVICE = b"This port speaks TLS: its addresses begin with https://\n"
USE_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_ADVICE), _ADVICE)
)
"""For a person who left out a letter."""


@implementer(ITransport, IPushProducer)
class TlsTransport(Adapter):
    """
    One TLS connection, the server's side.

    The loop's own layer raises and catches an exception for each read, keeps 256 KiB of
    buffer for each connection, and reads far ahead of a protocol that has paused it. This
    one stops when there is nothing left to decrypt.

    The peer's close_notify and a bare end of its stream both end the connection: whoever
    closes a TLS connection sends the first, and hardly anybody half-closes one.
    """

    def __init__(
        self,
        protocol: IProtocol,
        context: ssl.SSLContext,
        loop: asyncio.AbstractEventLoop,
        handshake_timeout: float,
        shaken: Callable[[TlsTransport, str], None] = lambda transport, failure: None,
    ) -> None:
        """
        @param handshake_timeout: seconds.
        @param shaken: called when the handshake is over, with an empty text, or with how it
            failed: C{timeout}, C{protocol} or C{gone}.
        """
        super().__init__(protocol)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._read, self._encrypt = tls.read, tls.write
        self._receive = protocol.dataReceived
        self._loop = loop
        self._handshake_timeout = handshake_timeout
        self._shaken: Callable[[TlsTransport, str], None] | None = shaken
        self._timer: asyncio.TimerHandle | None = None
        self._version = ""
        self._connected = False
        """Whether the protocol has a connection, as far as it knows."""

    # towards the loop: BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(transport)
        self._timer = self._loop.call_later(self._handshake_timeout, self._late)

    def get_buffer(self, sizehint: int) -> memoryview:
        return ARRIVED

    def buffer_updated(self, nbytes: int) -> None:
        self._incoming.write(ARRIVED[:nbytes])
        if self._shaken is not None and not self._shake():
            return
        if self._connected:
            self._deliver()

    def eof_received(self) -> bool:
        if self._connected and not self.disconnecting:
            self.ended()
        return False  # the loop closes the connection then

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._shaken is not None:
            self._shook("gone")
        elif self._connected:
            self._connected = False
            self.lose(exc)

    # handshake

    def _shake(self) -> bool:
        """Go on with the handshake; whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            if error.reason == PLAIN_HTTP:
                self._native.write(USE_TLS)
            else:
                self._flush()  # an alert says why
            self._native.close()
            self._shook("protocol")
            return False
        self._flush()
        self._shook("")
        self._version = self._tls.version() or ""
        self._connected = True
        self.protocol.makeConnection(self)
        return True

    def _shook(self, failure: str) -> None:
        self._stop_timer()
        shaken, self._shaken = self._shaken, None
        if failure:
            self.disconnecting = True
        if shaken is not None:
            shaken(self, failure)

    def _late(self) -> None:
        """The peer has not done its part in time."""
        self._timer = None
        if self._shaken is not None:
            self._shook("timeout")
        self._native.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # reading

    def _deliver(self) -> None:
        """
        Hand on all that can be decrypted: what was read at once, and what there was of a
        record before. In one piece, since each piece takes all the way to the machine.
        """
        incoming, outgoing, read = self._incoming, self._outgoing, self._read
        pieces: list[bytes] = []
        ended, broken = False, None
        try:
            while incoming.pending and not ended:
                pieces.append(read(RECORD_MAX))
                ended = not pieces[-1]
        except ssl.SSLWantReadError:
            pass  # the rest of a record is on its way
        except ssl.SSLZeroReturnError:  # what read says instead of nothing after our own end
            ended = True
        except ssl.SSLError as error:
            broken = error
        if outgoing.pending:  # the answer to a key update, or an alert
            self._native.write(outgoing.read())
        if pieces and not self.disconnecting:
            self._receive(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended and self._connected:
            self._ended()
        elif broken is not None and self._connected:
            self._broken(broken)

    def _ended(self) -> None:
        """The peer has sent its close_notify."""
        if not self.disconnecting:
            self.ended()  # at once: the loop closes the socket only when all is sent
        if not self.disconnecting:
            self.disconnecting = True  # after our goodbye nothing more can be encrypted
            self._say_goodbye()
            self._timer = self._loop.call_later(SHUTDOWN_TIMEOUT, self._native.abort)
        self._native.close()

    def lose(self, exc: Exception | None) -> None:
        super().lose(exc)
        # These need not wait for the garbage collector either.
        del self._tls, self._read, self._encrypt, self._receive, self._incoming, self._outgoing

    def _broken(self, error: ssl.SSLError) -> None:
        """What came is no TLS."""
        self._native.close()
        self.connection_lost(error)

    # writing

    def write(self, data: bytes) -> None:
        if not self.disconnecting and data:
            if len(data) > WRITE_SLICE:
                self._write_in_slices(data)
                return
            self._encrypt(data)
            self._native.write(self._outgoing.read())

    def _write_in_slices(self, data: bytes) -> None:
        view, parts = memoryview(data), []
        for start in range(0, len(data), WRITE_SLICE):
            self._encrypt(view[start : start + WRITE_SLICE])
            parts.append(self._outgoing.read())
        self._native.writelines(parts)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._native.write(self._outgoing.read())

    def loseConnection(self, reason: Any = None) -> None:
        """Close once everything written is sent."""
        if not self.disconnecting:
            self.disconnecting = True
            self._say_goodbye()
            # The peer closes when it has read our goodbye. What it sends until then must be
            # read, or the kernel would answer it with a reset, which may destroy what is on
            # its way to it (RFC 9112 section 9.6).
            if self.paused:
                self.paused = False
                self._native.resume_reading()
            self._timer = self._loop.call_later(SHUTDOWN_TIMEOUT, self._native.abort)

    def loseWriteConnection(self) -> None:
        if not self.disconnecting:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        # OpenSSL looks at once for the peer's, and calls it a fault of the peer's if it finds
        # anything else first: then nothing more could be read.
        arrived = self._incoming.read()
        with suppress(ssl.SSLError):  # the peer's is still to come, or it is past talking to
            self._tls.unwrap()
        self._incoming.write(arrived)
        self._flush()

    # facts

    def tls_version(self) -> str:
        return self._version
