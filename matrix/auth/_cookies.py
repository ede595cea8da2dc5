"""Session cookies: which they are, what they hold, and that no machine sees or sets one. Pure."""

from __future__ import annotations

import re

from matrix.auth._ssr import access_token
from matrix.errors import BadRequest

SESSION_COOKIE = b"__Host-matrix"
"""Our own session cookie. With the C{__Host-} prefix a browser takes it only from this very
host, over TLS, so that no sibling domain can plant one (RFC 6265bis section 4.1.3.2)."""

_SESSION_PREFIX = SESSION_COOKIE + b"="

# As @supabase/ssr names them (facts/supabase.md section 6), for whichever project: chunks,
# verifiers and -user included, as they carry the refresh token or can be exchanged for one.
_USUAL_NAME = rb"__Host-matrix|sb-.*-auth-token.*"
_PARTS = rb"(?:\.[0-9]+|-user|-(?:flows?-.*)?code-verifier)?"


class SessionCookies:
    """The cookies that sign somebody in at one door."""

    def __init__(self, supabase: bytes | None = None) -> None:
        """
        @param supabase: the name of the cookie with Supabase's session; C{None} to take none.
        """
        self._supabase = supabase
        names = _USUAL_NAME
        if supabase is not None:
            names += b"|" + re.escape(supabase) + _PARTS
        self._is_session = re.compile(names, re.DOTALL).fullmatch
        self._marks = (SESSION_COOKIE, b"-auth-token", *((supabase,) if supabase else ()))

    def own(self, cookie: bytes) -> bytes | None:
        """
        What our own session cookie holds.

        @param cookie: the value of C{Cookie}.
        @raise BadRequest: there are two of them.
        """
        if _SESSION_PREFIX not in cookie:
            return None
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
        return (values[0] or None) if values else None

    def supabase(self, cookie: bytes) -> bytes | None:
        """
        The access token in the cookies of Supabase's session.

        @param cookie: the value of C{Cookie}.
        """
        name = self._supabase
        if name is None or name not in cookie:
            return None
        found: dict[bytes, bytes] = {}
        for part in cookie.split(b";"):
            key, _, value = part.strip(b" \t").partition(b"=")
            if key.startswith(name):
                found.setdefault(key, value)  # the first of a name counts
        return access_token(found, name)

    def without(self, cookie: bytes) -> bytes | None:
        """
        A C{Cookie} value without our session cookie and those of Supabase, which carry the
        refresh token; every other byte stays as it was. C{None} if no cookie remains.
        """
        if not any(mark in cookie for mark in self._marks):
            return cookie
        parts = cookie.split(b";")
        kept = [part for part in parts if not self._is_session(_name(part))]
        if len(kept) == len(parts):
            return cookie
        remaining = b";".join(kept)
        if not remaining.strip(b"; \t"):
            return None
        # What followed a dropped first cookie had a space before it that is now at the front.
        return remaining if kept[0] is parts[0] else remaining.lstrip(b" \t")

    def allows(self, set_cookie: bytes) -> bool:
        """
        Whether a machine may set this cookie: not one that the router would take for a
        session, or a machine could sign its visitor in as somebody else.

        @param set_cookie: the value of a C{Set-Cookie} field.
        """
        # A browser sends the nameless cookie "=a=b" back as "a=b".
        return not self._is_session(_name(set_cookie.lstrip(b"= \t")))


def _name(pair: bytes) -> bytes:
    return pair.partition(b"=")[0].strip(b" \t")
