"""Where in a request its token may be, and what must be stripped of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

from matrix.auth import _query
from matrix.auth._cookies import SessionCookies
from matrix.auth._subprotocol import offered_token, without_tokens
from matrix.errors import BadRequest
from matrix.http.interfaces import Request


class Source(StrEnum):
    """Where a credential was found."""

    AUTHORIZATION = "authorization"
    SUBPROTOCOL = "subprotocol"
    TICKET = "ticket"
    """From C{POST /-/ticket}, in the query."""
    QUERY = "query"
    SESSION = "session"
    """Our own session cookie."""
    SUPABASE_COOKIE = "supabase-cookie"


_AUTHORIZATION = Source.AUTHORIZATION


class Credential(NamedTuple):
    """A token, or what stands for one, as a request presented it: not verified."""

    token: bytes
    source: Source

    def __repr__(self) -> str:
        return f"<Credential from {self.source}>"


class Places:
    """
    The places in which one door looks, the most deliberate first: C{Authorization}, a
    subprotocol, the query, our session cookie, Supabase's.
    """

    def __init__(self, supabase_cookie: bytes | None = None, query_token: bool = False) -> None:
        """
        @param supabase_cookie: the name of the cookie with Supabase's session; C{None} to
            take none.
        @param query_token: whether a token may be in the query.
        """
        self._cookies = SessionCookies(supabase_cookie)
        self._parameters = (_query.TICKET, _query.TOKEN) if query_token else (_query.TICKET,)
        self.query_token = query_token
        self.allows_set_cookie = self._cookies.allows
        self.strip: Mapping[bytes, Callable[[bytes], bytes | None]] = {
            b"cookie": self._cookies.without,
            b"sec-websocket-protocol": without_tokens,
            b"referer": self.without_query,
        }
        """By the name of a request's field: its value as a machine may see it, C{None} if
        nothing remains."""

    def given(self, request: Request) -> Credential | None:
        """
        What a header block was given on purpose: the token in C{Authorization} if it is
        C{Bearer} (RFC 6750 section 2.1), else the one among the subprotocols of a WebSocket.

        @raise BadRequest: there are two of the same kind.
        """
        authorization = request.get(b"authorization")
        if authorization is not None:
            if b"," in authorization:
                _refuse_two_fields(request)
            if authorization[:7].lower() == b"bearer ":
                return Credential(authorization[7:].strip(b" "), _AUTHORIZATION)
            if authorization.lower() == b"bearer":
                return Credential(b"", _AUTHORIZATION)
        offer = request.get(b"sec-websocket-protocol")
        token = offered_token(offer) if offer is not None else None
        return None if token is None else Credential(token, Source.SUBPROTOCOL)

    def ambient(self, request: Request) -> Credential | None:
        """
        What a browser puts into a header block by itself, whichever page makes the request:
        our session cookie, else Supabase's.

        @raise BadRequest: there are two session cookies of ours.
        """
        cookie = request.get(b"cookie")
        if cookie is None:
            return None
        handle = self._cookies.own(cookie)
        if handle is not None:
            return Credential(handle, Source.SESSION)
        token = self._cookies.supabase(cookie)
        return None if token is None else Credential(token, Source.SUPABASE_COOKIE)

    def in_query(self, target: bytes) -> Credential | None:
        """
        What the query of a target holds: a ticket, or a token if that is allowed.

        @raise BadRequest: there are two of the same kind.
        """
        ticket = _query.parameter(target, _query.TICKET)
        if ticket is not None:
            return Credential(ticket, Source.TICKET)
        token = _query.parameter(target, _query.TOKEN) if self.query_token else None
        return None if token is None else Credential(token, Source.QUERY)

    def without_query(self, target: bytes) -> bytes:
        """A target, or the URL of a page, without credentials in its query."""
        return _query.without(target, self._parameters)


def _refuse_two_fields(request: Request) -> None:
    # A comma is legal inside one field of another scheme (Digest), so count the fields.
    if sum(name == b"authorization" for name, _ in request.headers) > 1:
        raise BadRequest(
            "There are two Authorization fields; send one.", reason="two-authorizations"
        )
