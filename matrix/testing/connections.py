"""The open connections of a site of C{twisted.web}, which by itself leaves them behind."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.server import Site


class Connections(WrappingFactory):
    """Knows the open connections, so that closing can end them."""

    noisy = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self._empty: Deferred[None] | None = None

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        if self._empty is not None and not self.protocols:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def abort(self) -> Deferred[None]:
        """End all connections at once; fires when they are gone."""
        if not self.protocols:
            return succeed(None)
        empty = self._empty = Deferred()
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()
        return empty
