"""Origins: from which pages a request may use the user's cookie, and who may read answers. Pure."""

from __future__ import annotations

from collections.abc import Collection

from matrix.errors import Forbidden

_SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})


class Origins:
    """The origins whose pages are trusted: that of the request's own host, and listed ones."""

    def __init__(self, listed: Collection[bytes] = ()) -> None:
        """
        @param listed: further origins, as browsers write them (C{https://app.example}).
        """
        self._listed = frozenset(listed)

    def lists(self, origin: bytes) -> bool:
        """Whether this origin, not our own, is trusted."""
        return origin in self._listed

    def trusts(self, origin: bytes, host: bytes | None) -> bool:
        """
        Whether the pages of this origin are trusted.

        @param host: the C{Host} field.
        """
        if origin in self._listed:
            return True
        return host is not None and _plain(origin) == _plain(b"https://" + host)

    def check(self, method: bytes, origin: bytes | None, host: bytes | None, upgrade: bool) -> None:
        """
        Whether a request may use a cookie for its credential. A browser adds cookies to requests
        that any page makes, so whatever changes something, and a WebSocket, must come from a page
        that is trusted. C{SameSite} does not do: other users' pages may be on the same site.

        @param origin: the C{Origin} field.
        @param host: the C{Host} field.
        @param upgrade: whether the request asks for a WebSocket.
        @raise Forbidden: with reason C{origin}: the page is another's, or unknown.
        """
        if method in _SAFE_METHODS and not upgrade:
            return
        if origin is not None and self.trusts(origin, host):
            return
        raise Forbidden(
            "A request with a session cookie must come from a page of this host, or of one in "
            "MATRIX_ORIGINS. Programs send the token in an Authorization field instead.",
            reason="origin",
        )


def _plain(origin: bytes) -> bytes:
    """An origin as browsers write it: lower case, no default port (RFC 6454 section 6)."""
    return origin.lower().removesuffix(b":443")
