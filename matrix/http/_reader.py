"""
The sans-IO core: bytes in, heads and body bytes out (RFC 9112). Pure.

A reader is fed whatever arrives and asked for events until it has none:
a head, then the body's bytes as they come, then L{END}.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, cast

from matrix.errors import BadGateway, BadRequest, HeadTooLarge, MatrixError, UriTooLong
from matrix.http._fields import FieldLine, Fields, parse_fields
from matrix.http._heads import RequestHead, ResponseHead, guess, parse_status_line, read_request
from matrix.http._limits import Limits


class _End:
    """The message is complete."""

    def __repr__(self) -> str:
        return "END"


END: Final = _End()

# What the reader waits for next.
_HEAD, _END, _COUNTED, _UNTIL_CLOSE, _CHUNK_HEAD, _CHUNK_DATA, _CHUNK_END, _TRAILERS = range(8)

_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?")
_CHUNK_DIGITS = 16

_KNOWN_MAX = 16 * 1024
"""Bytes of the longest head that is remembered with a connection: whoever opens many of them
must not have us keep megabytes."""


class Reader:
    """What requests and responses share: buffering, and the framing of bodies."""

    __slots__ = ("_buffer", "_left", "_limits", "_state", "trailers")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = b""
        self._state: int = _HEAD
        self._left = 0
        self.trailers: Sequence[FieldLine] = ()
        """The trailer fields of the message that ended."""

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived."""
        self._buffer = self._buffer + data if self._buffer else data

    @property
    def buffered(self) -> int:
        """Bytes taken and not yet given out."""
        return len(self._buffer)

    @property
    def left_of_body(self) -> int:
        """Bytes that the present body still lacks, as far as known: a chunk's, if chunked."""
        return self._left if self._state in (_COUNTED, _CHUNK_DATA) else 0

    def finish(self) -> bool:
        """Take the L{END} as given, if it is all that is left of the message; whether it was."""
        if self._state != _END:
            return False
        self._state = _HEAD
        return True

    def take_rest(self) -> bytes:
        """What is left, when the connection goes over to another protocol."""
        rest, self._buffer = self._buffer, b""
        return rest

    # heads

    def _take_head(self) -> tuple[bytes, bytes] | None:
        """The first line and the header block, when the whole head is here."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or end > self._limits.head:
            self._check_partial(buffer)
            return None
        self._check_line_ends(buffer, end)
        first = buffer.find(b"\r\n")
        self._buffer = buffer[end + 4 :]
        return buffer[:first], buffer[first + 2 : end + 2]

    def _check_partial(self, buffer: bytes) -> None:
        """Refuse as early as possible what can no longer become a head."""
        longest = self._limits.head + len(b"\r\n\r\n")
        self._check_line_ends(buffer, longest)
        if len(buffer) >= longest:
            raise self._too_large(buffer)

    def _check_line_ends(self, buffer: bytes, end: int) -> None:
        # First, so that the refusal is the same however the bytes were split.
        if buffer.count(b"\n", 0, end) != buffer.count(b"\r\n", 0, end):
            raise BadRequest("A line ends in LF without CR.", reason="bare-lf")

    def _too_large(self, buffer: bytes) -> MatrixError:
        limits = self._limits
        if buffer.find(b"\r\n", 0, limits.head) < 0:
            return UriTooLong(f"The target is longer than {limits.target} bytes.", reason="target")
        return HeadTooLarge(f"The head is longer than {limits.head} bytes.", reason="head")

    def _expect_body(self, fields: Fields) -> None:
        if fields.chunked:
            self._state = _CHUNK_HEAD
        elif fields.length:
            self._state, self._left = _COUNTED, fields.length
        else:
            self._state = _END

    # bodies

    def _next_body(self) -> bytes | _End | None:
        while True:
            state = self._state
            if state == _END:
                self._state = _HEAD
                return END
            if not self._buffer:
                return None
            if state == _COUNTED:
                return self._counted()
            if state == _UNTIL_CLOSE:
                return self.take_rest()
            if state == _TRAILERS:
                if not self._take_trailers(self._buffer):
                    return None
            elif (data := self._chunked()) or self._state != _TRAILERS:
                return data or None

    def _counted(self) -> bytes:
        data = self._buffer
        if len(data) <= self._left:
            self._buffer = b""
        else:
            data, self._buffer = data[: self._left], data[self._left :]
        self._left -= len(data)
        if not self._left:
            self._state = _END
        return data

    def _chunked(self) -> bytes:
        """
        The data of all chunks that are here, in one piece: a body may come in chunks of a
        byte each, and with work that grows with the buffer for each of them, a quarter of a
        megabyte of it would stop the loop for a second.
        """
        buffer, at, parts = self._buffer, 0, []
        try:
            while at < len(buffer) and self._state != _TRAILERS:
                if self._state == _CHUNK_DATA:
                    parts.append(buffer[at : at + self._left])
                    at += len(parts[-1])
                    self._left -= len(parts[-1])
                    self._state = _CHUNK_DATA if self._left else _CHUNK_END
                elif passed := self._chunk_frame(buffer, at):
                    at += passed
                else:
                    break
        except BadRequest:
            if not parts:  # else what came before it goes first
                raise
        self._buffer = buffer[at:]
        return b"".join(parts)

    def _chunk_frame(self, buffer: bytes, at: int) -> int:
        """Go past one piece of framing; how long it is, nothing if it is not here yet."""
        if self._state == _CHUNK_HEAD:
            return self._chunk_head(buffer, at)
        end = buffer[at : at + 2]
        if end == b"\r\n":
            self._state = _CHUNK_HEAD
            return 2
        if end != b"\r":
            raise BadRequest("A chunk does not end where it said.", reason="chunk")
        return 0

    def _chunk_head(self, buffer: bytes, at: int) -> int:
        longest = self._limits.chunk_extension + _CHUNK_DIGITS
        end = buffer.find(b"\r\n", at, at + longest + 2)
        line = buffer[at : at + longest + 1] if end < 0 else buffer[at:end]
        if end < 0 and line[-1:] == b"\r":
            line = line[:-1]  # it may yet become a CRLF; the rest must look right so far
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise BadRequest("A chunk size is malformed.", reason="chunk")
        if match[2] and len(match[2]) > self._limits.chunk_extension:
            raise BadRequest("A chunk extension is too long.", reason="chunk-extension")
        if end < 0:
            return 0
        self._left = int(match[1], 16)
        self._state = _CHUNK_DATA if self._left else _TRAILERS
        # Keep the last CRLF: without trailers it and the final one are the head's end mark.
        return end - at + (2 if self._left else 0)

    def _take_trailers(self, buffer: bytes) -> bool:
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or end > self._limits.head:
            self._check_partial(buffer)
            return False
        self._check_line_ends(buffer, end)
        # Framing fields mean nothing here; that they are malformed still means no good.
        self.trailers = parse_fields(buffer[2 : end + 2], self._limits).lines if end else ()
        self._buffer = buffer[end + 4 :]
        self._state = _END
        return True


class RequestReader(Reader):
    """Reads requests, strictly: whatever two parsers could read differently is refused."""

    __slots__ = ("_known", "_known_fields", "_refused")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        # A client repeats its header fields on each request of a connection: what was
        # found out about the same bytes is still true.
        self._known = self._refused = b""
        self._known_fields: Fields | None = None

    def skip_body(self, limit: int) -> bool:
        """
        Go past the rest of a body that nobody wants.

        @param limit: bytes that may be left for that.
        @return: whether it was all here, and sound.
        """
        if self.left_of_body > limit:
            return False
        try:
            while (event := self.next_event()) is not END:
                if event is None:
                    return False
        except MatrixError:
            return False
        return True

    def next_event(self) -> RequestHead | bytes | _End | None:
        """
        The next head, body bytes, or L{END}; C{None} until more is fed.

        @raise MatrixError: the client broke a rule; nothing more can be read.
        """
        if self._state != _HEAD:
            return self._next_body()
        buffer, known = self._buffer, self._known
        try:
            if known and buffer.endswith(known) and len(buffer) <= self._limits.head:
                line, fields = buffer[: -len(known)], self._known_fields
                if b"\n" not in line and fields is not None:
                    self._buffer = b""
                    return self._request(line, fields)
            return self._next_head()
        except MatrixError:
            self._refused = buffer
            raise

    def refused_head(self) -> RequestHead:
        """What can be told, for the log, of a head that was refused or never became whole."""
        return guess(self._refused or self._buffer)

    def _next_head(self) -> RequestHead | None:
        # RFC 9112 section 2.2: empty lines before a request are forgiven.
        if self._buffer[:2] == b"\r\n":
            # All at once: one copy for each of a flood of them would stop the loop.
            empty = cast(re.Match[bytes], _EMPTY_LINES.match(self._buffer))
            self._buffer = self._buffer[empty.end() :]
        if not self._buffer:
            return None
        taken = self._take_head()
        if taken is None:
            return None
        line, block = taken
        known = b"\r\n%b\r\n" % block
        fields = self._known_fields
        if known != self._known or fields is None:
            fields = parse_fields(block, self._limits)
            if len(known) <= _KNOWN_MAX:
                self._known, self._known_fields = known, fields
        return self._request(line, fields)

    def _request(self, line: bytes, fields: Fields) -> RequestHead:
        head = read_request(line, fields, self._limits)
        self._expect_body(fields)
        return head


class ResponseReader(Reader):
    """Reads a machine's responses; every breach is a L{BadGateway}."""

    __slots__ = ("_known", "_known_head", "_method", "_upgrade", "has_body", "keeps_alive")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._known = b"\n"  # which no head begins with
        self._known_head: ResponseHead | None = None
        self.keeps_alive = True
        """Whether the connection may serve another request after the present response."""
        self.has_body = False
        """Whether the present response has a body, if an empty one."""

    def expect(self, method: bytes, upgrade: bool = False) -> None:
        """The next response answers a request with this method, that asked to upgrade or not."""
        self._method = method
        self._upgrade = upgrade
        self.trailers = ()

    def next_event(self) -> ResponseHead | bytes | _End | None:
        """
        The next head (1xx heads come first and have no L{END}), body bytes, or L{END};
        C{None} until more is fed. After a 101 that was asked for, L{take_rest}.

        @raise BadGateway: the machine broke a rule; nothing more can be read.
        """
        try:
            return self._next_body() if self._state != _HEAD else self._next_head()
        except BadGateway:
            raise
        except MatrixError as error:
            raise BadGateway(
                f"The machine's response is malformed: {error}", reason=error.reason
            ) from None

    def _next_head(self) -> ResponseHead | None:
        buffer, known, head = self._buffer, self._known, self._known_head
        if head is not None and buffer.startswith(known):
            self._buffer = buffer[len(known) :]
        else:
            head = self._new_head()
            if head is None:
                return None
        status, fields = head.status, head.fields
        if status < 200:
            if status == 101 and not self._upgrade:
                raise BadGateway("The machine upgraded without being asked.", reason="upgrade")
        else:
            self.keeps_alive = head.keeps_alive
            self.has_body = head.has_body(self._method)
            if not self.has_body:
                self._state = _END
            elif fields.chunked or fields.length is not None:
                self._expect_body(fields)
            else:
                self._state = _UNTIL_CLOSE
                self.keeps_alive = False
        return head

    def take_body(self) -> bytes | None:
        """The whole body, if it and nothing else is here, as is usual; the response is over."""
        body = self._buffer
        if self._state != _COUNTED or len(body) != self._left:
            return None
        self._buffer = b""
        self._left = 0
        self._state = _HEAD
        return body

    def _new_head(self) -> ResponseHead | None:
        """A head that is not that of the response before, byte for byte."""
        taken = self._take_head()
        if taken is None:
            return None
        line, block = taken
        http11, status, reason = parse_status_line(line)
        fields = parse_fields(block, self._limits)
        if fields.chunked and not http11:
            raise BadGateway("HTTP/1.0 knows no Transfer-Encoding.", reason="transfer-encoding")
        head = ResponseHead(http11, status, reason, fields)
        if len(block) <= _KNOWN_MAX:
            self._known, self._known_head = b"%b\r\n%b\r\n" % (line, block), head
        return head

    def closed(self) -> _End | None:
        """
        The machine closed the connection: L{END} if that is what its response waited for.

        @raise BadGateway: it was in the middle of a response.
        """
        if self._state == _UNTIL_CLOSE:
            self._state = _HEAD
            return END
        raise BadGateway("The machine closed the connection early.", reason="closed")
