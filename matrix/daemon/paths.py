"""Which texts name a place in the workspace: the rule, without a file system."""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from matrix.errors import BadRequest

Parts = tuple[bytes, ...]
"""The names on the way from the workspace to a place in it; empty for the workspace itself.
Bytes, because that is what names are on Linux: a file whose name is no UTF-8 can still be
listed, fetched and deleted."""

NAME_LIMIT = 255
"""Bytes: Linux's NAME_MAX."""

DEPTH_LIMIT = 128
"""Names in one path. Each costs a system call; real trees (node_modules included) stay
under 40."""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(r"%2[Ff]")
_UNESCAPED = "!$&'()*+,;=:@~"
"""What RFC 3986 section 3.3 lets stand in a path segment as it is, beside letters and digits."""


def parse_url(text: str) -> Parts:
    """
    The place that the rest of a URL's path names, percent-encoded and without a leading
    slash.

    @raise BadRequest: with C{reason} C{path}: the text names nothing, or means to leave.
    """
    if _BAD_ESCAPE.search(text):
        raise _refusal("has a % that is not followed by two hexadecimal digits")
    if _ENCODED_SLASH.search(text):
        raise _refusal("has an encoded slash (%2F): a name cannot contain a slash")
    return _checked(unquote_to_bytes(text.encode("latin-1")))


def parse_text(text: str) -> Parts:
    """
    The place that plain text (of a JSON field) names.

    @raise BadRequest: as L{parse_url}.
    """
    try:
        return _checked(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise _refusal("is not Unicode text") from None


def text_of(parts: Parts) -> str:
    """The path for people and programs to read; bytes that are no UTF-8 show as U+FFFD."""
    return b"/".join(parts).decode("utf-8", "replace")


def href(parts: Parts) -> str:
    """The path for a URL: what L{parse_url} takes back to C{parts}."""
    return "/".join(quote_from_bytes(name, _UNESCAPED) for name in parts)


def _checked(path: bytes) -> Parts:
    if not path:
        return ()
    parts = tuple(path.split(b"/"))
    if len(parts) > DEPTH_LIMIT:
        raise _refusal(f"is deeper than {DEPTH_LIMIT} folders")
    for name in parts:
        _check_name(name)
    return parts


def _check_name(name: bytes) -> None:
    if not name:
        raise _refusal("has an empty name: no slash at its start or end, none doubled")
    if name in (b".", b".."):
        raise _refusal(f"has the name {name.decode()!r}, which is not that of a file or folder")
    if b"\0" in name:
        raise _refusal("has a NUL byte")
    if len(name) > NAME_LIMIT:
        raise _refusal(f"has a name of {len(name)} bytes; {NAME_LIMIT} are possible")


def _refusal(what: str) -> BadRequest:
    return BadRequest(f"the path {what}", reason="path")
