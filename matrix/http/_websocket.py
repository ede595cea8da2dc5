"""WebSocket facts (RFC 6455): the handshake's answer, close frames, and following frames. Pure."""

from __future__ import annotations

import base64
import hashlib
import os

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_CONTROL_MAX = 125  # bytes in a control frame, section 5.5
_HEADER_MAX = 14  # bytes of a frame header: 2, extended length 8, mask 4, section 5.2
_CLOSE = 0x8
_CONTROL = 0x8  # opcodes from here on are control frames, section 5.2

SERVICE_RESTART = 1012
"""The machine goes to sleep or restarts: come back (IANA WebSocket close codes)."""
TRY_AGAIN_LATER = 1013
"""The machine cannot serve now (IANA WebSocket close codes)."""
UNAUTHORIZED = 4401
"""The session's right has ended: come back with a new token. As the next one a private code
(RFC 6455 section 7.4.2), made after the status that a request gets now."""
FORBIDDEN = 4403
"""The user may not come in any more."""


def accept_key(key: bytes) -> bytes:
    """The C{Sec-WebSocket-Accept} for a C{Sec-WebSocket-Key} (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def close_frame(code: int, reason: str, *, masked: bool = False) -> bytes:
    """A close frame (section 5.5.1); masked as a client must (section 5.3)."""
    payload = code.to_bytes(2, "big") + reason.encode("ascii", "replace")[: _CONTROL_MAX - 2]
    if not masked:
        return bytes((0x88, len(payload))) + payload
    mask = os.urandom(4)
    covered = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes((0x88, 0x80 | len(payload))) + mask + covered


class FrameFollower:
    """
    Follows one direction of a WebSocket by its frame headers alone: tells data frames from
    ping and pong, and knows where a frame of our own would not land inside another.
    """

    __slots__ = ("_control", "_header", "_left", "closing")

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        self._control = False
        self.closing = False
        """Whether a close frame has begun."""

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte begins a frame."""
        return not self._left and not self._header

    def feed(self, data: bytes) -> bool:
        """Go past these bytes; whether any of them belongs to a data frame."""
        if not self._left and not self._header and _is_one_data_frame(data):
            return True  # as most are, and nothing is left to remember
        used = False
        position, size = 0, len(data)
        while position < size:
            if self._left:
                step = min(self._left, size - position)
                self._left -= step
                position += step
            else:
                known = len(self._header)
                header = self._header + data[position : position + _HEADER_MAX - known]
                length = _header_length(header)
                if len(header) < length:
                    self._header = header
                    return used
                position += length - known
                self._header = b""
                self._begin(header)
            used = used or not self._control
        return used

    def _begin(self, header: bytes) -> None:
        opcode = header[0] & 0x0F
        self._control = opcode >= _CONTROL
        self.closing = self.closing or opcode == _CLOSE
        short = header[1] & 0x7F
        if short < 126:
            self._left = short
        else:
            self._left = int.from_bytes(header[2 : 4 if short == 126 else 10], "big")


def _is_one_data_frame(data: bytes) -> bool:
    """Whether these bytes are exactly one frame, and no control frame."""
    size = len(data)
    if size < 4 or data[0] & _CONTROL:
        return False
    second = data[1]
    short = second & 0x7F
    header = 6 if second & 0x80 else 2
    if short < 126:
        return header + short == size
    return short == 126 and header + 2 + (data[2] << 8 | data[3]) == size


def _header_length(header: bytes) -> int:
    """How long this frame header is, as far as its first bytes tell."""
    if len(header) < 2:
        return 2
    short = header[1] & 0x7F
    extended = 2 if short == 126 else 8 if short == 127 else 0
    return 2 + extended + (4 if header[1] & 0x80 else 0)
