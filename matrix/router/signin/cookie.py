"""The cookies of sign-in and sign-out, as they are set and taken back. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from matrix.auth import SESSION_COOKIE

LIFE = 30 * 86400.0
"""Seconds that a sign-in lasts at most, whatever is done with it: a cookie that was stolen ends
with it, too."""

_ATTRIBUTES = b"; Path=/; Secure; HttpOnly; SameSite=Lax"

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # a token, RFC 9110 section 5.6.2

MOST = 50
"""Cookies taken back in one answer: Supabase's session makes six at the most, with another
project's and leftovers a few more. A request's head holds thousands of made-up ones."""

Header = tuple[bytes, bytes]


def keep(handle: bytes) -> Header:
    """The field that gives a browser its handle."""
    life = b"; Max-Age=%d" % LIFE
    return (b"Set-Cookie", SESSION_COOKIE + b"=" + handle + _ATTRIBUTES + life)


def take_back(name: bytes = SESSION_COOKIE) -> Header:
    """The field that has a browser forget a cookie."""
    attributes = _ATTRIBUTES if name == SESSION_COOKIE else b"; Path=/; Secure; SameSite=Lax"
    return (b"Set-Cookie", name + b"=" + attributes + b"; Max-Age=0")


def take_back_all(cookie: bytes | None, allows: Callable[[bytes], bool]) -> list[Header]:
    """
    The fields that have a browser forget its session, ours and Supabase's.

    @param cookie: the request's C{Cookie} field.
    @param allows: whether a cookie is none of a session's, told by C{NAME=}.
    """
    names = [part.partition(b"=")[0].strip(b" \t") for part in (cookie or b"").split(b";")]
    others = {
        name: None
        for name in names
        if name != SESSION_COOKIE and _NAME.fullmatch(name) and not allows(name + b"=")
    }
    return [take_back(), *map(take_back, list(others)[:MOST])]
