"""Header blocks: strict parsing of field lines (RFC 9110 section 5, RFC 9112 section 5). Pure."""

from __future__ import annotations

import re
from typing import Any

from matrix.errors import BadRequest, HeadTooLarge
from matrix.http._limits import Limits

FieldLine = tuple[bytes, bytes, bytes]
"""Name in lower case, value without surrounding white space, and the line as it came."""

# RFC 9110 section 5.6.2 and 5.5: what a name consists of, and what may stand in a value
# (visible characters, space, tab, obs-text).
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LINE_BYTES = bytes(byte for byte in range(256) if byte == 9 or (byte >= 32 and byte != 127))
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+,;=]+)(?::[0-9]{1,5})?"
)  # RFC 3986 section 3.2.2; an empty host names nobody
_LENGTH = re.compile(rb"[0-9]{1,18}")  # 18 digits stay below 2**63

# Names seen before, with their lower case: header names are few, so the check that a name
# is a token is paid once. Bounded, because names come from strangers: half a megabyte in all.
_names: dict[bytes, bytes] = {}
_NAMES_MAX = 4096
_NAME_BYTES = 64  # longer names are rare


def is_token(text: bytes) -> bool:
    """Whether C{text} is a token in the sense of RFC 9110 section 5.6.2."""
    return _TOKEN.fullmatch(text) is not None


def _lower(name: bytes) -> bytes:
    if not is_token(name):
        raise BadRequest("A header field name is malformed.", reason="field-name")
    lower = name.lower()
    if len(name) <= _NAME_BYTES:
        if len(_names) >= _NAMES_MAX:
            _names.clear()
        _names[name] = lower
    return lower


def parse_lines(block: bytes, limits: Limits) -> list[FieldLine]:
    """
    Split a header block, each line of which ends in CRLF, into its fields.

    @raise BadRequest: it breaks a rule; the reason says which.
    @raise HeadTooLarge: it has too many fields.
    """
    lines = block.split(b"\r\n")
    lines.pop()
    if len(lines) > limits.fields:
        raise HeadTooLarge(f"More than {limits.fields} header fields.", reason="fields")
    # With everything allowed taken out, only the CRLF of each line may remain.
    if block.translate(None, _LINE_BYTES) != b"\r\n" * len(lines):
        raise BadRequest(
            "The header has a control character, or a CR or LF alone.", reason="control"
        )
    fields: list[FieldLine] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if line.startswith((b" ", b"\t")):
            raise BadRequest(
                "A header line begins with white space (line folding).", reason="obs-fold"
            )
        if not colon:
            raise BadRequest("A header line has no colon.", reason="field-colon")
        lower = _names.get(name)
        if lower is None:
            lower = _lower(name)
        fields.append((lower, value.strip(b" \t"), line))
    return fields


class Fields:
    """
    A parsed header block: its lines, and what framing and routing need to know of them.

    Immutable by convention and derived from the block's bytes alone, so that one object
    serves every message that repeats the same block on a connection. L{notes} holds what
    others derived from it (the forwarded form, the credential).
    """

    __slots__ = (
        "_values",
        "chunked",
        "close",
        "connection",
        "expect_continue",
        "has_body",
        "host",
        "keep_alive",
        "length",
        "lines",
        "notes",
        "te_trailers",
        "upgrade",
    )

    def __init__(self, lines: list[FieldLine]) -> None:
        """@raise BadRequest: lengths or codings are ambiguous (RFC 9112 section 6.3)."""
        self.lines = lines
        self.host: bytes | None = None
        self.length: int | None = None
        self.chunked = False
        self.connection: frozenset[bytes] = frozenset()
        self.close = False
        self.keep_alive = False
        self.expect_continue = False
        self.te_trailers = False
        self.upgrade: bytes | None = None
        self.notes: dict[Any, Any] = {}
        self._values: dict[bytes, bytes] = {}
        values = self._values
        for name, value, _line in lines:
            if name in values:
                values[name] += (b"; " if name == b"cookie" else b", ") + value
            else:
                values[name] = value
            special = _SPECIAL.get(name)
            if special is not None:
                special(self, value)
        if self.chunked and self.length is not None:
            raise BadRequest(
                "Content-Length and Transfer-Encoding contradict each other.", reason="te-and-cl"
            )
        self.has_body = self.chunked or bool(self.length)
        """Whether a body follows, if this is a request."""

    def get(self, name: bytes) -> bytes | None:
        """The value of a field; several are joined (RFC 9110 section 5.3; cookies by C{; },
        RFC 6265)."""
        return self._values.get(name)

    def _take_host(self, value: bytes) -> None:
        if self.host is not None:
            raise BadRequest("There are two Host fields.", reason="host")
        if not _HOST.fullmatch(value):
            raise BadRequest("The Host field is malformed.", reason="host")
        self.host = value

    def _take_length(self, value: bytes) -> None:
        if self.length is not None:
            raise BadRequest("There are two Content-Length fields.", reason="content-length")
        if not _LENGTH.fullmatch(value):
            raise BadRequest("Content-Length is no number.", reason="content-length")
        self.length = int(value)

    def _take_coding(self, value: bytes) -> None:
        if self.chunked or value.lower() != b"chunked":
            raise BadRequest(
                "The only transfer coding is chunked, once.", reason="transfer-encoding"
            )
        self.chunked = True

    def _take_connection(self, value: bytes) -> None:
        options = frozenset(option.strip(b" \t").lower() for option in value.split(b","))
        self.connection |= options
        self.close = b"close" in self.connection
        self.keep_alive = b"keep-alive" in self.connection

    def _take_expect(self, value: bytes) -> None:
        self.expect_continue = value.lower() == b"100-continue"

    def _take_te(self, value: bytes) -> None:
        codings = (coding.partition(b";")[0].strip(b" \t") for coding in value.split(b","))
        self.te_trailers = self.te_trailers or b"trailers" in (c.lower() for c in codings)

    def _take_upgrade(self, value: bytes) -> None:
        self.upgrade = value.lower() if self.upgrade is None else self.upgrade + b"," + value


_SPECIAL = {
    b"host": Fields._take_host,
    b"content-length": Fields._take_length,
    b"transfer-encoding": Fields._take_coding,
    b"connection": Fields._take_connection,
    b"expect": Fields._take_expect,
    b"te": Fields._take_te,
    b"upgrade": Fields._take_upgrade,
}


def parse_fields(block: bytes, limits: Limits) -> Fields:
    """
    The fields of a header block.

    @raise BadRequest, HeadTooLarge: as L{parse_lines} and L{Fields}.
    """
    return Fields(parse_lines(block, limits))
