"""Supabase's session cookies, whole and broken, exactly as C{@supabase/ssr} writes them."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, unquote

CHUNK_SIZE = 3180
"""Characters of one cookie's value at most, counted as C{encodeURIComponent} writes them."""

NAME = "sb-localhost-auth-token"
"""The cookie of the local issuer, by the first label of its host."""

MARK = "base64-"
"""What an encoded value begins with; in chunks, only the first has it."""

# What encodeURIComponent leaves as it is, beside letters and digits (ECMA-262 section 19.2.6.4).
_UNRESERVED = "-_.!~*'()"

Encoding = Literal["base64url", "raw"]
Cookies = list[tuple[str, str]]
"""Names and values as they stand in a C{Cookie} field."""


class Case(NamedTuple):
    """One way in which the cookies of a session may arrive."""

    cookies: Cookies
    good: bool
    """Whether C{@supabase/ssr} itself reads the session from them."""

    @property
    def field(self) -> str:
        """The C{Cookie} field."""
        return field_of(self.cookies)


def field_of(cookies: Iterable[tuple[str, str]]) -> str:
    """A C{Cookie} field's value."""
    return "; ".join(f"{name}={value}" for name, value in cookies)


def ssr_cookies(
    session: Mapping[str, Any] | str,
    name: str = NAME,
    encoding: Encoding = "base64url",
    size: int = CHUNK_SIZE,
) -> Cookies:
    """
    The cookies of a session: one, or chunks where it is too long for one.

    @param session: the answer to a sign-in, or the text that stands in its place.
    """
    value = session if isinstance(session, str) else _stringify(session)
    if encoding == "base64url":
        value = MARK + urlsafe_b64encode(value.encode()).rstrip(b"=").decode()
    if len(_escape(value)) <= size:
        return [(name, _escape(value))]
    return [(f"{name}.{place}", chunk) for place, chunk in enumerate(_chunks(value, size))]


def _stringify(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _escape(value: str) -> str:
    return quote(value, safe=_UNRESERVED)


def _chunks(value: str, size: int) -> list[str]:
    """The escaped text in pieces of at most C{size}, none of which ends within a character."""
    rest, chunks = _escape(value), []
    while rest:
        end = min(size, len(rest))
        while not _whole(rest[:end]):
            end -= 1
        chunks.append(rest[:end])
        rest = rest[end:]
    return chunks


def _whole(escaped: str) -> bool:
    if "%" in escaped[-2:]:
        return False
    try:
        unquote(escaped, errors="strict")
    except UnicodeDecodeError:
        return False
    return True


def grown(session: Mapping[str, Any], fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The session, its user's metadata grown by 200 characters at a time until it fits."""
    user = dict(session.get("user") or {})
    for steps in range(1000):
        known = user | {"user_metadata": {"note": "née Ω 🌳 " + "x" * 200 * steps}}
        candidate = {**session, "user": known}
        if fits(candidate):
            return candidate
    raise AssertionError("no session fits")


def in_chunks(
    session: Mapping[str, Any], count: int, encoding: Encoding = "base64url"
) -> dict[str, Any]:
    """The session, grown until it needs this many cookies."""
    return grown(session, lambda grew: len(ssr_cookies(grew, encoding=encoding)) == count)


def cases(
    session: Mapping[str, Any], older: Mapping[str, Any], name: str = NAME
) -> dict[str, Case]:
    """
    Every way that is known, by what to call it.

    @param session: the one that the good cases hold.
    @param older: another, of which something may be left.
    """
    single = ssr_cookies(session, name)
    three = ssr_cookies(in_chunks(session, 3), name)
    five = ssr_cookies(in_chunks(older, 5), name)
    raw = ssr_cookies(session, name, "raw", 10**6)
    found = {
        "single": Case(single, True),
        "raw": Case(raw, True),
        "unchunked beside chunks": Case([*five, *single], True),
        "empty unchunked beside chunks": Case([(name, ""), *three], True),
        "chunks in another order": Case(three[::-1], True),
        "older chunks behind a gap": Case([*three, five[4]], True),
        "an older chunk without a gap": Case([*three, five[3]], False),
        "first chunk missing": Case(three[1:], False),
        "a gap": Case([three[0], three[2]], False),
        "chunks of two generations": Case([three[0], *five[1:3], *three[3:]], False),
        "bad base64": Case([(name, f"{MARK}*{single[0][1][len(MARK) + 1 :]}")], False),
        "base64 of no JSON": Case(ssr_cookies("{no", name), False),
        "base64 of no object": Case(ssr_cookies('["a"]', name), False),
        "base64 of no UTF-8": Case([(name, MARK + "_w")], False),
        "no token inside": Case(ssr_cookies('{"refresh_token":"r"}', name), False),
        "cut": Case([(name, single[0][1][:-40])], False),
        "only the mark": Case([(name, MARK)], False),
        "empty": Case([(name, "")], False),
        "a leading zero": Case(
            [(f"{name}.0{at}", part) for at, (_, part) in enumerate(three)], False
        ),
        "another project's": Case(ssr_cookies(session, "sb-other-auth-token"), False),
    }
    for encoding in ("base64url", "raw"):
        for count in range(2, 6):
            chunks = ssr_cookies(in_chunks(session, count, encoding), name, encoding)
            found[f"{count} chunks, {encoding}"] = Case(chunks, True)
    return found


def huge(session: Mapping[str, Any], size: int, name: str = NAME) -> Cookies:
    """The session's cookies, grown until their field has C{size} bytes."""

    def fits(grew: dict[str, Any]) -> bool:
        return len(field_of(ssr_cookies(grew, name))) >= size

    return ssr_cookies(grown(session, fits), name)
