"""What the heads of repository requests say: credentials, ranges, lengths. Pure."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode

from matrix.errors import BadRequest, LengthRequired, PayloadTooLarge, Unauthorized
from matrix.http.interfaces import HeaderList, Request
from matrix.snapshots.interfaces import Span

V1 = b"application/vnd.x.restic.rest.v1"
V2 = b"application/vnd.x.restic.rest.v2"
"""Compared and sent exactly so: with a parameter behind it restic takes a list for v1."""

CHALLENGE = (b"www-authenticate", b'Basic realm="snapshots", charset="UTF-8"')

_RANGE = re.compile(rb"bytes=\s*(\d{1,18})?-(\d{1,18})?\s*", re.IGNORECASE)


def basic_credentials(request: Request) -> tuple[str, str]:
    """
    User and password (RFC 7617).

    @raise Unauthorized: there are none. restic without any sends an empty user and password.
    """
    scheme, _, encoded = (request.get(b"authorization") or b"").partition(b" ")
    if scheme.lower() != b"basic":
        raise bad_credentials("missing")
    try:
        text = b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise bad_credentials("form") from None
    user, colon, password = text.partition(":")
    if not (colon and user and password):
        raise bad_credentials("missing")
    return user, password


def bad_credentials(reason: str) -> Unauthorized:
    """What is wrong is not told in more detail than it needs to be."""
    return Unauthorized(
        "this needs Basic authentication with a user's id and backup credential",
        reason=reason,
        headers=[CHALLENGE],
    )


def wanted_span(request: Request) -> Span | None:
    """The one range that is asked for; several, malformed or of other units count as none
    (RFC 9110 section 14.2)."""
    found = _RANGE.fullmatch(request.get(b"range") or b"")
    if found is None:
        return None
    first, last = found.groups()
    if first is None:
        # The last no bytes are none: left to mean all, as of any other nonsense.
        return Span(-int(last)) if last and int(last) else None
    if last is not None and int(last) < int(first):
        return None
    return Span(int(first), None if last is None else int(last))


def announced_length(request: Request, limit: int) -> int:
    """
    The length of the body that follows.

    @raise LengthRequired: it is not told.
    @raise PayloadTooLarge: it is over the limit.
    """
    field = request.get(b"content-length")
    if field is None or not field.isdigit():
        raise LengthRequired("an upload must tell its length", reason="length")
    length = int(field[:19])
    if length > limit:
        raise PayloadTooLarge(f"a file may have {limit} bytes, not {length}", reason="file-size")
    return length


def list_version(request: Request) -> bytes:
    """The form in which a list is wanted, as its media type."""
    return V2 if request.get(b"accept") == V2 else V1


def partial(size: int, wanted: range) -> HeaderList:
    """The fields that say which bytes come."""
    return [(b"content-range", b"bytes %d-%d/%d" % (wanted.start, wanted.stop - 1, size))]


def wants_creation(request: Request) -> None:
    """
    @raise BadRequest: the query does not ask for a repository to be made.
    """
    if request.query != b"create=true":
        raise BadRequest("a repository is made with POST …?create=true", reason="create")
