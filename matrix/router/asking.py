"""What the endpoints of the admin API share: whom an operator means, pages, times, outages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Final
from urllib.parse import parse_qs

from matrix.directory.interfaces import DirectoryUnavailable, IDirectory
from matrix.errors import BadRequest, NotFound, Unavailable
from matrix.http.interfaces import Request
from matrix.model import User

CAUSE: Final = "operator"
"""What C{events} say of whatever came over the admin API."""

PAGE_LIMIT: Final = 1000
"""Rows in one answer: some hundred kilobytes of JSON."""


@contextmanager
def reaching_the_directory() -> Iterator[None]:
    """
    @raise Unavailable: the directory could not be reached by what was done within.
    """
    try:
        yield
    except DirectoryUnavailable:
        raise Unavailable(
            "the database cannot be reached now", reason="directory", retry_after=1.0
        ) from None


async def find_user(directory: IDirectory, text: str) -> User:
    """
    The user an operator means.

    @raise NotFound: nobody is known by that text, or several are.
    """
    with reaching_the_directory():
        found = await directory.find_user(text)
    if found is None:
        raise NotFound(
            f"no user is known as {text!r}: give a user id, an e-mail address, or the part "
            "before its @ if only one user has it; a user is known from the first request on",
            reason="user",
        )
    return found


def query_of(request: Request) -> dict[str, str]:
    """The parameters of a request's query; of several by one name the last."""
    fields = parse_qs(request.query.decode("latin-1"), keep_blank_values=True)
    return {name: values[-1] for name, values in fields.items()}


def limit_in(query: Mapping[str, str], default: int) -> int:
    """
    How many rows are asked for.

    @raise BadRequest: too many, or it is no number.
    """
    text = query.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= PAGE_LIMIT):
        raise BadRequest(f"limit must be a number from 1 to {PAGE_LIMIT}", reason="limit")
    return int(text)


def time_json(at: datetime | None) -> str | None:
    """A time as the admin API tells it: RFC 3339."""
    return None if at is None else at.isoformat()
