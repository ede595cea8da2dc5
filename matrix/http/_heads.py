"""Request and response heads: the first line and what follows from it (RFC 9112). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matrix.errors import (
    BadGateway,
    BadRequest,
    MethodNotAllowed,
    UnknownMethod,
    UriTooLong,
    VersionNotSupported,
)
from matrix.http._fields import Fields, is_token
from matrix.http._limits import Limits

_TARGET = re.compile(rb"[\x21\x22\x24-\x7e]+")  # visible ASCII without '#': fragments stay home
_USUAL_LINE = re.compile(
    rb"(DELETE|GET|HEAD|OPTIONS|PATCH|POST|PUT) (/[\x21\x22\x24-\x7e]*) HTTP/1\.([01])"
)
"""What nearly all request lines look like; any other is taken apart step by step, so that its
fault can be named."""
_ABSOLUTE = re.compile(rb"https?://([^/?]+)(/[^?]*)?(\?.*)?", re.IGNORECASE)
_METHOD_MAX = 32  # bytes; RFC 9112 section 3 would have longer ones answered 501
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")


_GUESS_MAX = 4096
"""Bytes of a refused head that are looked at for what it asked for."""

_NO_FIELDS = Fields([])


class RequestHead:
    """A request's head; implements L{matrix.http.interfaces.Request}."""

    __slots__ = ("fields", "http11", "method", "target")

    def __init__(self, method: bytes, target: bytes, http11: bool, fields: Fields) -> None:
        self.method = method
        self.target = target
        self.http11 = http11
        self.fields = fields

    @property
    def path(self) -> bytes:
        """See L{matrix.http.interfaces.Request.path}."""
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        """See L{matrix.http.interfaces.Request.query}."""
        return self.target.partition(b"?")[2]

    def get(self, name: bytes) -> bytes | None:
        """The value of a field by its lower-case name."""
        return self.fields.get(name)

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Every field in order, names in lower case."""
        return [(name, value) for name, value, _ in self.fields.lines]

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants the connection kept (RFC 9112 section 9.3)."""
        if self.fields.close:
            return False
        return self.http11 or self.fields.keep_alive

    @property
    def wants_websocket(self) -> bool:
        """
        Whether this is a WebSocket opening handshake (RFC 6455 section 4.2.1).

        With a body it is none: behind an upgrade nothing tells where a body ends.
        """
        fields = self.fields
        return (
            fields.upgrade == b"websocket"
            and b"upgrade" in fields.connection
            and self.method == b"GET"
            and self.http11
            and not fields.chunked
            and not fields.length
        )

    @property
    def is_navigation(self) -> bool:
        """Whether a browser asks for a page to show (Fetch metadata, or an HTML C{Accept})."""
        if self.method not in (b"GET", b"HEAD") or self.fields.upgrade is not None:
            return False
        mode = self.get(b"sec-fetch-mode")
        if mode is not None:
            return mode == b"navigate"
        return b"text/html" in (self.get(b"accept") or b"")


def parse_request_line(line: bytes, limits: Limits) -> tuple[bytes, bytes, bool]:
    """
    Method, target and whether it is HTTP/1.1.

    @raise MatrixError: it cannot be served.
    """
    parts = line.split(b" ")
    if len(parts) != 3:
        raise BadRequest("The request line is malformed.", reason="request-line")
    method, target, version = parts
    if not is_token(method):
        raise BadRequest("The request method is malformed.", reason="method")
    if len(method) > _METHOD_MAX:
        raise UnknownMethod(f"No method has over {_METHOD_MAX} letters.", reason="method")
    if version != b"HTTP/1.1" and version != b"HTTP/1.0":
        if _VERSION.fullmatch(version):
            raise VersionNotSupported("Speak HTTP/1.1.", reason="version")
        raise BadRequest("The request line is malformed.", reason="request-line")
    if len(target) > limits.target:
        raise UriTooLong(f"The target is longer than {limits.target} bytes.", reason="target")
    if method in (b"CONNECT", b"TRACE"):
        raise MethodNotAllowed(
            "CONNECT and TRACE are not served.",
            reason="method",
            headers=((b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),),
        )
    if not _TARGET.fullmatch(target):
        raise BadRequest("The request target is malformed.", reason="target")
    return method, target, version == b"HTTP/1.1"


def read_request(line: bytes, fields: Fields, limits: Limits) -> RequestHead:
    """
    Put a request's line and its fields together.

    @raise MatrixError: it cannot be served.
    """
    usual = _USUAL_LINE.fullmatch(line)
    if usual is not None and len(line) <= limits.target:
        method, target, minor = usual.groups()
        http11 = minor == b"1"
    else:
        method, target, http11 = parse_request_line(line, limits)
    if fields.host is None:
        raise BadRequest("There is no Host field.", reason="host")
    if fields.chunked and not http11:
        raise BadRequest("HTTP/1.0 knows no Transfer-Encoding.", reason="transfer-encoding")
    if usual is None and target[:1] != b"/" and not (target == b"*" and method == b"OPTIONS"):
        target = _origin_form(target, fields.host)
    return RequestHead(method, target, http11, fields)


def _origin_form(target: bytes, host: bytes) -> bytes:
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadRequest("The request target is in no form that is served.", reason="target")
    authority, path, query = absolute.groups()
    if authority.lower() != host.lower():
        raise BadRequest("The target's authority is not the Host.", reason="host")
    return (path or b"/") + (query or b"")


def guess(head: bytes) -> RequestHead:
    """
    What was asked for by a head that could not be read: method and target, if the first line
    begins with such. Otherwise nothing of it, since it may be anything, a secret included.
    """
    line = head.lstrip(b"\r\n")[:_GUESS_MAX].partition(b"\r\n")[0]
    method, _, rest = line.partition(b" ")
    target = rest.partition(b" ")[0]
    if is_token(method) and target[:1] == b"/" and _TARGET.fullmatch(target):
        return RequestHead(method, target, True, _NO_FIELDS)
    return RequestHead(b"", b"", True, _NO_FIELDS)


class ResponseHead:
    """A response's head."""

    __slots__ = ("fields", "http11", "reason", "status")

    def __init__(self, http11: bool, status: int, reason: bytes, fields: Fields) -> None:
        self.http11 = http11
        self.status = status
        self.reason = reason
        self.fields = fields

    def has_body(self, method: bytes) -> bool:
        """Whether a body follows (RFC 9112 section 6.3, rules 1 and 2)."""
        return not (
            method == b"HEAD" or self.status < 200 or self.status == 204 or self.status == 304
        )

    @property
    def keeps_alive(self) -> bool:
        """Whether the machine keeps the connection."""
        if self.fields.close:
            return False
        return self.http11 or self.fields.keep_alive


def parse_status_line(line: bytes) -> tuple[bool, int, bytes]:
    """
    Whether it is HTTP/1.1, the status and the reason phrase.

    @raise BadGateway: it is no status line.
    """
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadGateway("The machine's status line is malformed.", reason="status-line")
    return match[1] == b"1", int(match[2]), match[3] or b""
