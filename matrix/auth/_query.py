"""Credentials in a query: finding one, and taking it out again. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from matrix.errors import BadRequest

TICKET = b"matrix_ticket"
TOKEN = b"access_token"
"""RFC 6750 section 2.3."""

UNDERSCORE = 0x5F
"""The byte that both names have and few targets do: looking for one byte costs a tenth of looking
for a name, and each request's target is looked at."""


def parameter(target: bytes, name: bytes) -> bytes | None:
    """
    The value of a query's parameter, C{None} without one. Its name counts only as it is
    written here: what is found must be what L{without} takes out.

    @param target: a request's target.
    @raise BadRequest: there are two.
    """
    if name not in target:
        return None
    begin = name + b"="
    query = target.partition(b"?")[2]
    values = [part[len(begin) :] for part in query.split(b"&") if part.startswith(begin)]
    if len(values) > 1:
        raise BadRequest(
            f"There are two {name.decode()} parameters; send one.", reason="two-query-tokens"
        )
    return unquote_to_bytes(values[0]) if values else None


def without(target: bytes, names: Iterable[bytes]) -> bytes:
    """
    A target, or a URL, without these parameters; every other byte stays as it was.
    """
    begins = tuple(name + b"=" for name in names if target.find(name) >= 0)
    if not begins:
        return target
    path, mark, query = target.partition(b"?")
    parts = query.split(b"&")
    kept = [part for part in parts if not part.startswith(begins)]
    if len(kept) == len(parts):
        return target
    return path + mark + b"&".join(kept) if kept else path
