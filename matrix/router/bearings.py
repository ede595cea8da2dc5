"""What the front reads from a header block, once for all requests that repeat it. Pure."""

from __future__ import annotations

from matrix.auth import AMBIENT, Credential, find_token
from matrix.http import RequestHead, has_trace


class Bearings:
    """Who a header block says it comes from, and what kind of request it makes."""

    __slots__ = ("ambient", "credential", "passive", "traced")

    def __init__(self, request: RequestHead) -> None:
        """@raise BadRequest: it holds two credentials."""
        self.credential: Credential | None = find_token(request)
        self.ambient = self.credential is not None and self.credential.source in AMBIENT
        """Whether a browser may have sent the credential on its own, whoever made the request."""
        purpose = request.get(b"sec-purpose") or request.get(b"purpose") or b""
        self.passive = purpose.lower().startswith(b"prefetch")
        """Whether a browser only guesses that the page will be wanted (Fetch, Sec-Purpose)."""
        self.traced = has_trace(request.fields)
        """Whether it brings a trace of its own."""


def bearings(request: RequestHead) -> Bearings:
    """
    The bearings of a request.

    @raise BadRequest: it holds two credentials.
    """
    notes = request.fields.notes
    known: Bearings | None = notes.get(Bearings)
    if known is None:
        known = notes[Bearings] = Bearings(request)
    return known
