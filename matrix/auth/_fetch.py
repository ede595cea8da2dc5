"""One download of a key set: bounded in bytes, and taken only if it is usable."""

from __future__ import annotations

from dataclasses import dataclass

from treq.client import HTTPClient
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from matrix.auth._jwk import KeySet, lifetime, read_key_set

MAX_DOCUMENT = 256 * 1024
"""Bytes of a key set; a real one has about 1 KB."""

_HEADERS = Headers({b"accept": [b"application/json"], b"user-agent": [b"matrix"]})


class BadAnswerError(Exception):
    """The issuer answered, but not with a usable key set."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the issuer answered."""

    document: bytes
    keys: KeySet
    lifetime: float
    """Seconds for which it counts as fresh."""


async def download(
    http: HTTPClient, url: str, clock: IReactorTime, *, may_be_empty: bool
) -> Fetched:
    """
    Fetch a key set once.

    @param may_be_empty: whether a set without members is one, as that of a project which
        signs with a secret.
    @raise BadAnswerError: the answer is not usable; says why.
    """
    response = await http.get(
        url,
        headers=_HEADERS,
        allow_redirects=False,
        reactor=clock,  # type: ignore[arg-type] # only its time is used
    )
    document = bytearray()

    def collect(data: bytes) -> None:
        document.extend(data)
        if len(document) > MAX_DOCUMENT:
            raise BadAnswerError(f"the key set is longer than {MAX_DOCUMENT} bytes")

    await response.collect(collect)
    if response.code != 200:
        raise BadAnswerError(f"status {response.code}")
    try:
        keys = read_key_set(bytes(document))
    except ValueError as error:
        raise BadAnswerError(str(error)) from None
    if not keys.keys and (keys.refused or not may_be_empty):
        raise BadAnswerError("; ".join(("no usable key", *keys.refused)))
    seconds = lifetime(_only_header(response, b"cache-control"), _only_header(response, b"age"))
    return Fetched(bytes(document), keys, seconds)


def _only_header(response: IResponse, name: bytes) -> str | None:
    values = response.headers.getRawHeaders(name)
    return b", ".join(values).decode("latin-1") if values else None
