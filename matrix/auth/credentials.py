"""Where in a request its token may be, what must be stripped of it, and when a cookie counts."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from matrix.errors import BadRequest, Forbidden
from matrix.http.interfaces import Request

SESSION_COOKIE = b"__Host-matrix"
"""Our own session cookie. With the C{__Host-} prefix a browser takes it only from this very
host, over TLS, so that no sibling domain can plant one (RFC 6265bis section 4.1.3.2)."""

_SESSION_PREFIX = SESSION_COOKIE + b"="

# As @supabase/ssr names them (facts/supabase.md section 6): chunks, verifiers and -user
# included, because they carry the refresh token or can be exchanged for one.
_SESSION_NAME = re.compile(rb"__Host-matrix|sb-.*-auth-token.*", re.DOTALL)

_SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})


class Source(StrEnum):
    """Where a token was found."""

    AUTHORIZATION = "authorization"
    SUBPROTOCOL = "subprotocol"
    TICKET = "ticket"
    QUERY = "query"
    SESSION = "session"
    """Our own session cookie."""
    SUPABASE_COOKIE = "supabase-cookie"


AMBIENT = frozenset({Source.SESSION, Source.SUPABASE_COOKIE})
"""What a browser sends on its own, whichever page makes the request."""

_AUTHORIZATION = Source.AUTHORIZATION
_SESSION = Source.SESSION


class Credential(NamedTuple):
    """A token as a request presented it, not verified."""

    token: bytes
    source: Source

    def __repr__(self) -> str:
        return f"<Credential from {self.source}>"


def find_token(request: Request) -> Credential | None:
    """
    The token of a request: the one in C{Authorization} if it is C{Bearer} (RFC 6750
    section 2.1), else that of our session cookie.

    @raise BadRequest: there are two C{Authorization} fields, or two session cookies.
    """
    authorization = request.get(b"authorization")
    if authorization is not None:
        if b"," in authorization:
            _refuse_two_fields(request)
        if authorization[:7].lower() == b"bearer ":
            return Credential(authorization[7:].strip(b" "), _AUTHORIZATION)
        if authorization.lower() == b"bearer":
            return Credential(b"", _AUTHORIZATION)
    cookie = request.get(b"cookie")
    if cookie is not None and _SESSION_PREFIX in cookie:
        token = _session_cookie(cookie)
        if token:
            return Credential(token, _SESSION)
    return None


def _refuse_two_fields(request: Request) -> None:
    # A comma is legal inside one field of another scheme (Digest), so count the fields.
    if sum(name == b"authorization" for name, _ in request.headers) > 1:
        raise BadRequest(
            "There are two Authorization fields; send one.", reason="two-authorizations"
        )


def _session_cookie(cookie: bytes) -> bytes | None:
    values = [
        pair[len(_SESSION_PREFIX) :]
        for pair in (part.strip(b" \t") for part in cookie.split(b";"))
        if pair.startswith(_SESSION_PREFIX)
    ]
    if len(values) > 1:
        # A browser has one at most, so somebody is trying to slip in another.
        raise BadRequest(
            f"There are two {SESSION_COOKIE.decode()} cookies; send one.",
            reason="two-session-cookies",
        )
    return values[0] if values else None


def without_session_cookies(cookie: bytes) -> bytes | None:
    """
    A C{Cookie} value without our session cookie and those of Supabase, which carry the
    refresh token; every other byte stays as it was. C{None} if no cookie remains.
    """
    if SESSION_COOKIE not in cookie and b"-auth-token" not in cookie:
        return cookie
    parts = cookie.split(b";")
    kept = [
        part for part in parts if not _SESSION_NAME.fullmatch(part.partition(b"=")[0].strip(b" \t"))
    ]
    if len(kept) == len(parts):
        return cookie
    remaining = b";".join(kept)
    if not remaining.strip(b"; \t"):
        return None
    # What followed a dropped first cookie had a space before it that is now at the front.
    return remaining if kept[0] is parts[0] else remaining.lstrip(b" \t")


def allows_set_cookie(value: bytes) -> bool:
    """
    Whether a machine may set this cookie: not one that the router would take for a
    session, or a machine could sign its visitor in as somebody else.

    @param value: of a C{Set-Cookie} field.
    """
    # A browser sends the nameless cookie "=a=b" back as "a=b".
    return not _SESSION_NAME.fullmatch(value.lstrip(b"= \t").partition(b"=")[0].strip(b" \t"))


def check_origin(
    credential: Credential, method: bytes, origin: bytes | None, host: bytes | None, upgrade: bool
) -> None:
    """
    Whether a request may use its credential. A browser adds a cookie to requests that any
    page makes, so with one, whatever changes something, and a WebSocket, must come from a
    page of ours. C{SameSite} does not do: other users' pages may be on the same site.

    @param origin: the C{Origin} field.
    @param host: the C{Host} field.
    @param upgrade: whether the request asks for a WebSocket.
    @raise Forbidden: with reason C{origin}: the page is another's, or unknown.
    """
    if credential.source not in AMBIENT or (method in _SAFE_METHODS and not upgrade):
        return
    if origin is not None and host is not None:
        own = b"https://" + host
        if origin == own or _plain(origin) == _plain(own):
            return
    raise Forbidden(
        "A request with a session cookie must come from a page of this host. "
        "Programs send the token in an Authorization field instead.",
        reason="origin",
    )


def _plain(origin: bytes) -> bytes:
    """An origin as browsers write it: lower case, no default port (RFC 6454 section 6)."""
    return origin.lower().removesuffix(b":443")
