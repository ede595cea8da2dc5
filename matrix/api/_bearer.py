"""Let in only those who know the one secret of this listener."""

from __future__ import annotations

import hmac

from matrix.errors import ConfigurationError, Unauthorized
from matrix.http.interfaces import Request

CHALLENGE = (b"www-authenticate", b"Bearer")
"""RFC 9110 section 11.6.1: each 401 names the scheme that would be accepted."""


class BearerCheck:
    """
    A check that wants C{Authorization: Bearer <expected>} (RFC 6750 section 2.1).

    Neither the secret nor what a client sent in its place appears in an error or a repr.
    """

    __slots__ = ("_expected",)

    def __init__(self, expected: str) -> None:
        """
        @raise ConfigurationError: C{expected} is empty: it would let anybody in.
        """
        if not expected:
            raise ConfigurationError("the bearer token is empty: set one")
        self._expected = expected.encode("utf-8")

    def __call__(self, request: Request) -> None:
        """
        @raise Unauthorized: with C{reason} C{missing}, C{scheme} or C{token}.
        """
        given = request.get(b"authorization")
        if given is None:
            raise _refusal("missing", "this call needs an Authorization header with a Bearer token")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer":
            raise _refusal("scheme", "the Authorization header must be of the form: Bearer TOKEN")
        if not hmac.compare_digest(token.strip(b" "), self._expected):
            raise _refusal("token", "the Bearer token is not the one that this listener accepts")

    def __repr__(self) -> str:
        return "<BearerCheck>"


def _refusal(reason: str, detail: str) -> Unauthorized:
    return Unauthorized(detail, reason=reason, headers=[CHALLENGE])
