"""What pages of other origins may do, and what answers tell their browsers of it. Pure.

The CORS protocol (WHATWG Fetch, section 3.3): a browser asks with a preflight before it sends
what no form could send, and lets a page read an answer only with the fields below.
"""

from __future__ import annotations

import re

from matrix.auth import MARKER, Origins
from matrix.errors import Forbidden
from matrix.http import Fields, HeaderList, Request, Rules

PREFLIGHT_LIFE = 600
"""Seconds for which a browser may remember a preflight's answer: a withdrawn origin is noticed
within minutes, and the 5 s that browsers assume without it would double the requests."""

EXPOSED = (
    b"Matrix-Degraded, Matrix-Wake, Retry-After, Server-Timing, WWW-Authenticate, X-Request-Id"
)
"""What pages may read beside the fields that they always may: all that Matrix itself says."""

_VARY = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_METHOD = re.compile(_TOKEN)
_NAMES = re.compile(rb"(?:%b[ \t]*,[ \t]*)*%b" % (_TOKEN, _TOKEN))


def is_preflight(request: Request) -> bool:
    """Whether a browser asks whether it may ask."""
    return (
        request.method == b"OPTIONS"
        and request.get(b"origin") is not None
        and request.get(b"access-control-request-method") is not None
    )


def preflight(request: Request, origins: Origins) -> HeaderList:
    """
    The answer to a preflight from a trusted page: it may send what it wants to. The request
    itself is then judged by its credential.

    @raise Forbidden: with reason C{origin}: the page is none that is trusted.
    """
    origin = request.get(b"origin") or b""
    method = request.get(b"access-control-request-method") or b""
    names = request.get(b"access-control-request-headers") or b""
    if not origins.trusts(origin, request.get(b"host")):
        raise Forbidden(
            "Pages of this origin may not send requests here; MATRIX_ORIGINS lists those that may.",
            reason="origin",
        )
    headers = [
        (b"Access-Control-Allow-Origin", origin),
        (b"Access-Control-Allow-Credentials", b"true"),
        (b"Access-Control-Max-Age", b"%d" % PREFLIGHT_LIFE),
        (b"Vary", _VARY),
    ]
    if _METHOD.fullmatch(method):
        headers.append((b"Access-Control-Allow-Methods", method))
    if _NAMES.fullmatch(names):
        headers.append((b"Access-Control-Allow-Headers", names))
    return headers


def cors_headers(request: Request, origins: Origins) -> list[tuple[bytes, bytes]]:
    """What an answer of ours must carry for the page that asked, if that is a listed one."""
    origin = request.get(b"origin")
    if origin is None or not origins.lists(origin):
        return []
    return [
        (b"Access-Control-Allow-Origin", origin),
        (b"Access-Control-Allow-Credentials", b"true"),
        (b"Access-Control-Expose-Headers", EXPOSED),
        (b"Vary", b"Origin"),
    ]


class AnswerRules:
    """
    The rules of a door for one header block to whose answers something is to be added:
    leave for the page that asked, or the choice of a subprotocol.
    """

    def __init__(self, rules: Rules, headers: HeaderList, marked: bool) -> None:
        """
        @param headers: those of L{cors_headers}.
        @param marked: whether the client offers L{MARKER} for a subprotocol.
        """
        self._rules = rules
        self._lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self._marked = marked
        self.to_machine = rules.to_machine

    def to_client(self, fields: Fields) -> bytes:
        """See L{matrix.http.Rules.to_client}. What the machine says of it counts."""
        lines = self._rules.to_client(fields)
        if self._lines and fields.get(b"access-control-allow-origin") is None:
            lines += self._lines
        if (
            self._marked
            and fields.upgrade == b"websocket"
            and fields.get(b"sec-websocket-protocol") is None
        ):
            lines += b"Sec-WebSocket-Protocol: %b\r\n" % MARKER
        return lines
