"""The local issuer's port on loopback, where its API can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.web.resource import Resource
from twisted.web.server import Site

from matrix.testing._issuer_api import IssuerApi, WebRequest
from matrix.testing.connections import Connections

if TYPE_CHECKING:
    from matrix.testing.issuer import LocalIssuer

PREFIX = [b"auth", b"v1"]
"""The path below which Supabase's gateway has the API, and C{supabase-js} looks for it."""


class _Root(Resource):
    """The API at the root, as the service has it, and below L{PREFIX}, as its gateway has it."""

    def __init__(self, api: Resource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._api = api

    def getChild(self, path: bytes, request: WebRequest) -> Resource:
        request.postpath.insert(0, request.prepath.pop())
        if request.postpath[:2] == PREFIX:
            request.prepath += request.postpath[:2]
            del request.postpath[:2]
        return self._api


class IssuerServer:
    """The API on a loopback port."""

    def __init__(self, issuer: LocalIssuer, reactor: Any) -> None:
        self._reactor = reactor
        resource = IssuerApi(issuer, reactor).app.resource()
        site = Site(_Root(resource), reactor=reactor)  # type: ignore[no-untyped-call]
        site.noisy = False
        self._connections = Connections(site)
        self._port: Any = None
        self.url = ""

    def listen(self, port: int) -> str:
        self._port = self._reactor.listenTCP(port, self._connections, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}"
        return self.url

    async def close(self) -> None:
        if self._port is not None:
            await self._port.stopListening()
            await self._connections.abort()
