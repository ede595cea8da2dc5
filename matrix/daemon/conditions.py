"""Conditional and range requests (RFC 9110 sections 13 and 14), as pure decisions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime

from matrix.errors import BadRequest, PreconditionFailed, RangeNotSatisfiable
from matrix.http.interfaces import Request

_TAG = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rb"\s*%b(?:\s*,\s*%b)*\s*" % (_TAG, _TAG))
_ONE_RANGE = re.compile(rb"bytes=\s*(\d{0,19})-(\d{0,19})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Version:
    """What is at a place now, as far as conditions look at it."""

    etag: bytes
    """A strong validator with its quotes."""
    modified: int
    """Unix seconds: HTTP dates carry no more."""


def http_date(seconds: int) -> bytes:
    """Unix seconds as an HTTP date (RFC 9110 section 5.6.7)."""
    return formatdate(seconds, usegmt=True).encode("ascii")


def check_change(request: Request, now: Version | None) -> None:
    """
    Whether a change may go ahead, given what is there (C{None}: nothing).

    @raise PreconditionFailed: the client decided on another version than C{now}.
    @raise BadRequest: a condition is malformed.
    """
    _check_match(request, now)
    unwanted = request.get(b"if-none-match")
    if unwanted is not None and now is not None and _weakly_among(b"if-none-match", unwanted, now):
        raise PreconditionFailed("If-None-Match: what it names is there", reason="if-none-match")


def is_unmodified(request: Request, now: Version) -> bool:
    """
    Whether a C{GET} is answered 304: the client has this very version.

    @raise PreconditionFailed: it wanted another version (C{If-Match}) or an older one.
    @raise BadRequest: a condition is malformed.
    """
    _check_match(request, now)
    known = request.get(b"if-none-match")
    if known is not None:
        return _weakly_among(b"if-none-match", known, now)
    since = _date(request.get(b"if-modified-since"))
    return since is not None and now.modified <= since


def wanted_range(request: Request, now: Version, size: int, clock: float) -> range | None:
    """
    The bytes that a C{GET} asks for; C{None} for all of them. Several ranges at once, other
    units and malformed ones are ignored, as section 14.2 allows.

    @param clock: unix seconds; a date is a strong validator only once it is in the past
        (section 8.8.2.2).
    @raise RangeNotSatisfiable: the range lies outside the file.
    """
    field = request.get(b"range")
    if field is None or not _if_range_holds(request.get(b"if-range"), now, clock):
        return None
    match = _ONE_RANGE.fullmatch(field)
    asked = _resolved(match[1], match[2], size) if match else None
    if asked is None:
        return None
    if not asked:
        raise RangeNotSatisfiable(
            f"the file has {size} bytes", headers=[(b"content-range", b"bytes */%d" % size)]
        )
    return asked


def _resolved(first: bytes, last: bytes, size: int) -> range | None:
    """The bytes C{first-last} of a file; C{None} if that is no range (section 14.1.1)."""
    if not first:
        return range(max(0, size - int(last)), size) if last and size else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


def _check_match(request: Request, now: Version | None) -> None:
    wanted = request.get(b"if-match")
    if wanted is not None:
        if now is None or not (wanted == b"*" or now.etag in _tags(b"if-match", wanted)):
            raise PreconditionFailed("If-Match: what is there is another", reason="if-match")
        return
    since = _date(request.get(b"if-unmodified-since"))
    if since is not None and now is not None and now.modified > since:
        raise PreconditionFailed(
            "If-Unmodified-Since: it was changed since", reason="if-unmodified-since"
        )


def _weakly_among(name: bytes, field: bytes, now: Version) -> bool:
    return field == b"*" or now.etag in [tag.removeprefix(b"W/") for tag in _tags(name, field)]


def _tags(name: bytes, field: bytes) -> list[bytes]:
    if not _TAGS.fullmatch(field):
        raise BadRequest(
            f'{name.decode()}: write * or entity tags with their quotes, such as "abc"',
            reason=name.decode(),
        )
    return re.findall(_TAG, field)


def _if_range_holds(field: bytes | None, now: Version, clock: float) -> bool:
    if field is None:
        return True
    if field.endswith(b'"'):
        return field == now.etag
    return field == http_date(now.modified) and clock - now.modified > 1


def _date(field: bytes | None) -> int | None:
    """An HTTP date; what is none counts as absent (section 13.1.3)."""
    if field is None:
        return None
    try:
        return int(parsedate_to_datetime(field.decode("latin-1")).timestamp())
    except (ValueError, OverflowError):
        return None
