"""What the front reads from a header block, once for all requests that repeat it. Pure."""

from __future__ import annotations

from matrix.auth import Credential, Origins, Places, has_marker
from matrix.http import HeaderRules, RequestHead, Rules, has_trace
from matrix.router.cors import AnswerRules, cors_headers


class Bearings:
    """Who a header block says it comes from, and what kind of request it makes."""

    __slots__ = ("ambient", "given", "passive", "rules", "traced")

    def __init__(
        self, request: RequestHead, places: Places, origins: Origins, rules: Rules
    ) -> None:
        """@raise BadRequest: it holds two credentials."""
        self.given: Credential | None = places.given(request)
        """A credential that somebody meant to send."""
        self.ambient = places.ambient(request) if self.given is None else None
        """One that a browser may have sent on its own, whoever made the request."""
        purpose = request.get(b"sec-purpose") or request.get(b"purpose") or b""
        self.passive = purpose.lower().startswith(b"prefetch")
        """Whether a browser only guesses that the page will be wanted (Fetch, Sec-Purpose)."""
        self.traced = has_trace(request.fields)
        """Whether it brings a trace of its own."""
        self.rules = rules
        """What becomes of its header lines, and of its answers'."""
        headers = cors_headers(request, origins)
        offer = request.get(b"sec-websocket-protocol")
        marked = offer is not None and has_marker(offer)
        if headers or marked:
            self.rules = AnswerRules(rules, headers, marked)


class Compass:
    """Takes the bearings of one door's requests."""

    def __init__(self, places: Places, origins: Origins) -> None:
        self.places = places
        self.origins = origins
        self._rules = HeaderRules(places.strip, places.allows_set_cookie)

    def bearings(self, request: RequestHead) -> Bearings:
        """
        The bearings of a request.

        @raise BadRequest: it holds two credentials.
        """
        notes = request.fields.notes
        known: Bearings | None = notes.get(Bearings)
        if known is None:
            known = notes[Bearings] = Bearings(request, self.places, self.origins, self._rules)
        return known


def taken(request: RequestHead) -> Bearings:
    """The bearings of a request whose credential was asked for before."""
    known: Bearings = request.fields.notes[Bearings]
    return known
