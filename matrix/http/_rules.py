"""Header rules: what crosses from client to machine, and from machine to client. Pure.

DESIGN, HTTP rules; hop-by-hop fields after RFC 9110 section 7.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from matrix.http._fields import FieldLine, Fields

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)

# Written anew for the machine, or nobody's to claim but ours.
_NOT_TO_MACHINE = _HOP_BY_HOP | {
    b"authorization",
    b"content-length",
    b"forwarded",
    b"x-real-ip",
    b"x-request-id",
}
_NOT_TO_MACHINE_PREFIXES = (b"x-matrix-", b"x-forwarded-", b"fly-")

_NOT_TO_CLIENT = _HOP_BY_HOP | {
    b"content-length",
    b"matrix-degraded",
    b"matrix-wake",
    b"x-request-id",
}
# A hostile machine could steer Fly's proxy with these (facts: Fly, response-header injection).
_NOT_TO_CLIENT_PREFIXES = (b"fly-replay",)
_FLY_REPLAY_TYPE = b"application/vnd.fly.replay+json"

# Fields that must not come after the body: framing, routing, credentials (RFC 9110 6.5.1).
_NOT_IN_TRAILERS = (
    _NOT_TO_MACHINE
    | _NOT_TO_CLIENT
    | {b"cookie", b"content-encoding", b"content-range", b"content-type", b"host", b"set-cookie"}
    | {b"trailer", b"www-authenticate", b"cache-control", b"expect", b"max-forwards", b"range"}
    | {b"age", b"date", b"expires", b"location", b"retry-after", b"vary"}
)
_NOT_IN_TRAILERS_PREFIXES = _NOT_TO_MACHINE_PREFIXES + _NOT_TO_CLIENT_PREFIXES

_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Rules(Protocol):
    """What a relay asks about header blocks."""

    def to_machine(self, fields: Fields) -> bytes:
        """The lines that go on to the machine, each with CRLF."""

    def to_client(self, fields: Fields) -> bytes:
        """The lines that go back to the client, each with CRLF."""


class HeaderRules:
    """
    The rules of one door.

    What they make of a header block is kept with the block (L{Fields.notes}), since
    clients and machines repeat themselves.
    """

    def __init__(
        self,
        strip: Mapping[bytes, Callable[[bytes], bytes | None]],
        allow_set_cookie: Callable[[bytes], bool],
    ) -> None:
        """
        @param strip: by the name of a request's field, what makes its value one without the
            door's own secrets, C{None} if nothing remains.
        @param allow_set_cookie: whether a machine may set this C{Set-Cookie} value.
        """
        self._strip = strip
        self._allow_set_cookie = allow_set_cookie

    def to_machine(self, fields: Fields) -> bytes:
        """The lines that go on to the machine, C{X-Forwarded-Host} included, each with CRLF."""
        block: bytes | None = fields.notes.get(self)
        if block is None:
            block = fields.notes[self] = self._request_block(fields)
        return block

    def _request_block(self, fields: Fields) -> bytes:
        host = fields.host or b""
        out = [b"Host: " + host, b"X-Forwarded-Host: " + host]
        traced = has_trace(fields)
        for name, value, line in fields.lines:
            if name == b"host" or _dropped(
                name, fields.connection, _NOT_TO_MACHINE, _NOT_TO_MACHINE_PREFIXES
            ):
                continue
            strip = self._strip.get(name.replace(b"_", b"-"))  # see _dropped
            if strip is not None:
                kept = strip(value)
                if kept is not None:
                    out.append(line if kept is value else line.partition(b":")[0] + b": " + kept)
            elif name not in (b"traceparent", b"tracestate") or traced:
                out.append(line)
        if fields.te_trailers:
            out.append(b"TE: trailers\r\nConnection: TE")
        out.append(b"")
        return b"\r\n".join(out)

    def to_client(self, fields: Fields) -> bytes:
        """The lines that go back to the client, each with CRLF."""
        block: bytes | None = fields.notes.get(self)
        if block is None:
            block = fields.notes[self] = self._response_block(fields)
        return block

    def _response_block(self, fields: Fields) -> bytes:
        out = []
        for name, value, line in fields.lines:
            if _dropped(name, fields.connection, _NOT_TO_CLIENT, _NOT_TO_CLIENT_PREFIXES):
                continue
            if name == b"set-cookie" and not self._allow_set_cookie(value):
                continue
            if name == b"content-type" and value.lower().startswith(_FLY_REPLAY_TYPE):
                continue
            out.append(line)
        out.append(b"")
        return b"\r\n".join(out)


def has_trace(fields: Fields) -> bool:
    """Whether the client sent a valid C{traceparent} (W3C Trace Context), which then is kept."""
    trace = fields.get(b"traceparent")
    return trace is not None and _TRACEPARENT.fullmatch(trace) is not None


def trailers_to_client(trailers: Sequence[FieldLine]) -> bytes:
    """The trailer lines that may pass, each with CRLF."""
    return b"".join(
        line + b"\r\n"
        for name, _, line in trailers
        if not _dropped(name, frozenset(), _NOT_IN_TRAILERS, _NOT_IN_TRAILERS_PREFIXES)
    )


def _dropped(
    name: bytes, nominated: frozenset[bytes], names: frozenset[bytes], prefixes: tuple[bytes, ...]
) -> bool:
    # Servers behind us may read X_Matrix_User as X-Matrix-User (CGI's rule): same name.
    plain = name.replace(b"_", b"-")
    return plain in names or name in nominated or plain.startswith(prefixes)
