"""Supabase's session as C{@supabase/ssr} keeps it in cookies: its name, chunks and codings. Pure.

After the behaviour of that package's reader (facts/supabase.md section 6): what it takes for no
session is none here, and nothing that a client may send is an error.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from itertools import count
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

_CODED = "base64-"
_ALPHABET = re.compile("[A-Za-z0-9_-]*")
_IGNORED = str.maketrans("", "", " \t\r\n=")
_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def supabase_cookie_name(issuer: str) -> str:
    """
    What the session's cookie is called unless the application names it otherwise: after the
    first label of the host, which is the project's reference where Supabase hosts it.

    @param issuer: the issuer's URL.
    """
    return f"sb-{(urlsplit(issuer).hostname or '').partition('.')[0]}-auth-token"


def access_token(cookies: Mapping[bytes, bytes], name: bytes) -> bytes | None:
    """
    The access token of the session in these cookies, not verified; C{None} if they hold no
    session, or only parts of some.

    @param cookies: values by name, as they stand in the C{Cookie} field.
    """
    session = _parsed(_joined(cookies, name))
    token = session.get("access_token") if isinstance(session, dict) else None
    if not isinstance(token, str) or not token.isascii():
        return None
    return token.encode("ascii") or None


def _joined(cookies: Mapping[bytes, bytes], name: bytes) -> str:
    """The value under the bare name if it has any, else the chunks up to the first that lacks:
    what stands behind is left over from a longer session."""
    whole = cookies.get(name)
    if whole:
        return _unescaped(whole)
    chunks = []
    for number in count():
        chunk = cookies.get(b"%b.%d" % (name, number))
        if not chunk:
            break
        chunks.append(_unescaped(chunk))
    return "".join(chunks)


def _unescaped(value: bytes) -> str:
    """A cookie's value as cookie libraries read it: what is escaped badly is as it stands."""
    if b"%" in value and not _NO_ESCAPE.search(value):
        try:
            return unquote_to_bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            pass
    return value.decode("latin-1")


def _parsed(text: str) -> Any:
    try:
        return json.loads(_decoded(text) if text.startswith(_CODED) else text)
    except (ValueError, RecursionError):  # chunks of two generations, or somebody's play
        return None


def _decoded(text: str) -> str:
    """@raise ValueError: it is no base64url of UTF-8."""
    coded = text[len(_CODED) :].translate(_IGNORED)
    if not _ALPHABET.fullmatch(coded):
        raise ValueError("no base64url")
    if len(coded) % 4 == 1:  # six bits are no byte; the reader drops them
        coded = coded[:-1]
    return urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode("utf-8")
