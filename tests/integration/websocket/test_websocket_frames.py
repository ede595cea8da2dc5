"""
A client without rules meets the same machine directly and through Matrix: same outcome.

The scenarios go through what the Autobahn test suite asks of an endpoint (its case groups 1 to
7), frame by frame; a proxy that touched, held back or judged any of them would be found out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from matrix.testing.websocket_case import CLOSE, Step, WebSocketCase, raw

# The first byte of a frame (RFC 6455 section 5.2).
CONTINUED, TEXT, BINARY, PING, PONG = 0x0, 0x1, 0x2, 0x9, 0xA
FIN, RSV1, RSV3 = 0x80, 0x40, 0x10

SIZES = (0, 1, 125, 126, 127, 128, 65535, 65536, 65537)
"""Where the form of a frame's length changes."""

GREEK = "κόσμε".encode()

Table = Mapping[str, tuple[Step, ...]]


def frame(first: int, payload: bytes = b"", mask: bytes | None = b"\x37\xfa\x21\x3d") -> bytes:
    """A frame of a client, which masks what it sends."""
    size, bit = len(payload), 0x80 if mask else 0
    if size < 126:
        length = bytes([bit | size])
    elif size < 65536:
        length = bytes([bit | 126]) + struct.pack("!H", size)
    else:
        length = bytes([bit | 127]) + struct.pack("!Q", size)
    return bytes([first]) + length + (mask + masked(payload, mask) if mask else payload)


def masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def text(payload: bytes) -> bytes:
    return frame(FIN | TEXT, payload)


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(FIN | 8, struct.pack("!H", code) + reason)


def cut(data: bytes, *places: int) -> tuple[bytes, ...]:
    """The data in pieces, each sent by itself."""
    edges = (0, *places, len(data))
    return tuple(data[edges[at] : edges[at + 1]] for at in range(len(edges) - 1))


def every_byte(data: bytes) -> tuple[bytes, ...]:
    return cut(data, *range(1, len(data)))


# What is answered is waited for (a number of frames) before the end: whether the machine still
# answers a message that came together with a close frame is a matter of time.

MESSAGES: Table = {
    **{f"text of {size}": (text(b"*" * size), 1, CLOSE) for size in SIZES},
    **{f"binary of {size}": (frame(FIN | BINARY, b"\xfe" * size), 1, CLOSE) for size in SIZES},
    "cut at odd places": (
        *cut(frame(FIN | BINARY, bytes(1 << 20)), 7, 9, 15, 70000),
        1,
        CLOSE,
    ),
    "many in one piece": (text(b"one") * 100 + text(b"") * 100, 200, CLOSE),
    "a length of 5 in 16 bits": (b"\x81\xfe\x00\x05\0\0\0\0hello", 1, CLOSE),
    "a length of 5 in 64 bits": (b"\x81\xff\0\0\0\0\0\0\0\x05\0\0\0\0hello", 1, CLOSE),
    "a length of 300 in 64 bits": (
        b"\x82\xff\0\0\0\0\0\0\x01\x2c\0\0\0\0" + b"x" * 300,
        1,
        CLOSE,
    ),
    "a length of 0 in 16 bits": (b"\x82\xfe\0\0\0\0\0\0", 1, CLOSE),
    "each byte by itself": (*every_byte(text(b"x" * 200)), 1, *every_byte(CLOSE)),
    "a mask of zeros": (b"\x81\x85\0\0\0\0hello", 1, CLOSE),
}

CONTROLS: Table = {
    "ping": (frame(FIN | PING, b"payload"), CLOSE),
    "empty ping": (frame(FIN | PING), CLOSE),
    "binary ping of 125": (frame(FIN | PING, bytes(range(131, 256))), CLOSE),
    "ping of 126": (frame(FIN | PING, b"x" * 126),),
    "ping, byte by byte": (*every_byte(frame(FIN | PING, b"p" * 125)), CLOSE),
    "unsolicited pong": (frame(FIN | PONG, b"nobody asked"), CLOSE),
    "pong, then ping": (frame(FIN | PONG) + frame(FIN | PING, b"now"), CLOSE),
    "ten pings": (*[frame(FIN | PING, b"%d" % number) for number in range(10)], CLOSE),
    "a ping in pieces": (frame(PING, b"not fin"), frame(FIN | CONTINUED, b"!")),
    "a pong in pieces": (frame(PONG, b"not fin"), frame(FIN | CONTINUED, b"!")),
    "a close in pieces": (frame(8, b"\x03\xe8"), frame(FIN | CONTINUED)),
    "pong of 126": (frame(FIN | PONG, b"x" * 126),),
    "close of 126": (frame(FIN | 8, b"\x03\xe8" + b"x" * 124),),
}

BROKEN: Table = {
    **{
        f"RSV {bits >> 4:03b}": (text(b"before"), 1, frame(FIN | bits | TEXT, b"x"))
        for bits in range(0x10, 0x80, 0x10)
    },
    "RSV on a ping": (frame(FIN | RSV1 | PING, b"x"),),
    "RSV on a close": (frame(FIN | RSV3 | 8),),
    **{
        f"opcode {opcode}": (text(b"before"), 1, frame(FIN | opcode, b"x") + text(b"after"))
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "no mask": (frame(FIN | TEXT, b"x", mask=None),),
    "no mask on a ping": (frame(FIN | PING, b"x", mask=None),),
    "no mask on a close": (frame(FIN | 8, b"\x03\xe8", mask=None),),
    "the length's highest bit": (b"\x82\xff" + b"\xff" * 8 + b"abcd",),
    "more than the machine takes": (b"\x82\xff" + struct.pack("!Q", 8 << 30) + b"abcdx",),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",),
}

PIECES: Table = {
    "two": (frame(TEXT, b"frag") + frame(FIN | CONTINUED, b"ment"), 1, CLOSE),
    "fifty, all empty": (
        frame(TEXT) + frame(CONTINUED) * 48 + frame(FIN | CONTINUED),
        1,
        CLOSE,
    ),
    "with pings and pongs between": (
        frame(TEXT, b"a"),
        frame(FIN | PING, b"1"),
        frame(CONTINUED, b"b"),
        frame(FIN | PING, b"2"),
        frame(FIN | PONG, b"3"),
        frame(FIN | CONTINUED, b"c"),
        3,
        CLOSE,
    ),
    "continuing nothing": (frame(FIN | CONTINUED, b"x"),),
    "continuing nothing, not fin": (frame(CONTINUED, b"x"), text(b"x")),
    "continuing what was over": (text(b"whole"), 1, frame(FIN | CONTINUED, b"x")),
    "a new message within one": (frame(TEXT, b"a"), text(b"b")),
    "a close within one": (frame(TEXT, b"a"), close(1000, b"enough")),
    "large ones": (
        frame(BINARY, bytes(70000)) + frame(FIN | CONTINUED, b"\xff" * 300),
        1,
        CLOSE,
    ),
    "a character across two": (
        frame(TEXT, GREEK[:3]),
        frame(FIN | CONTINUED, GREEK[3:]),
        1,
        CLOSE,
    ),
}

UTF8: Table = {
    "Greek": (text(GREEK), 1, CLOSE),
    "beyond the first plane": (text("😀 \U0010ffff".encode()), 1, CLOSE),
    "noncharacters": (text("\ufffe\uffff".encode()), 1, CLOSE),
    "overlong": (text(b"\xc0\xaf"),),
    "a surrogate": (text(GREEK + b"\xed\xa0\x80" + b"edited"),),
    "beyond Unicode": (text(b"\xf4\x90\x80\x80"),),
    "cut short": (text(GREEK[:-1]),),
    "a byte that never is": (text(b"\xff"),),
    "wrong in the second piece": (frame(TEXT, GREEK), frame(FIN | CONTINUED, b"\x80")),
    "none in binary": (frame(FIN | BINARY, b"\xff\xc0"), 1, CLOSE),
}

ALLOWED = (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999)
FORBIDDEN = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)

CLOSES: Table = {
    **{f"{code}": (close(code, b"why"),) for code in ALLOWED + FORBIDDEN},
    "no code": (CLOSE,),
    "half a code": (frame(FIN | 8, b"\x03"),),
    "the longest reason": (close(1000, b"r" * 123),),
    "a reason in Greek": (close(1000, GREEK),),
    "a reason that is no text": (close(1000, GREEK + b"\xed\xa0\x80"),),
    "twice": (close(1000) + close(1001),),
    "with a message behind": (close(1000) + text(b"too late"),),
    "with a ping behind": (close(1000) + frame(FIN | PING, b"too late"),),
    "after a message": (text(b"x" * 70000), 1, close(4321, b"done")),
}

ENDS: Table = {
    "at once": ("eof",),
    "reset at once": ("reset",),
    "after a message": (text(b"hello"), 1, "eof"),
    "reset after a message": (text(b"hello"), 1, "reset"),
    "within a frame": (text(b"hello")[:8], "eof"),
    "within a frame's header": (b"\x82\xff\0\0", "eof"),
    "within a message": (frame(TEXT, b"a"), "eof"),
}
"""The machine's account of clients that end without a word; they hear nothing themselves."""


class FrameTests(WebSocketCase):
    def try_all(self, table: Table) -> None:
        for name, steps in table.items():
            with self.subTest(name):
                self.assert_same(name, raw(*steps), "/echo")

    def test_messages(self) -> None:
        self.try_all(MESSAGES)

    def test_controls(self) -> None:
        self.try_all(CONTROLS)

    def test_broken(self) -> None:
        self.try_all(BROKEN)

    def test_pieces(self) -> None:
        self.try_all(PIECES)

    def test_utf8(self) -> None:
        self.try_all(UTF8)

    def test_closes(self) -> None:
        self.try_all(CLOSES)

    def test_ends(self) -> None:
        self.try_all(ENDS)
