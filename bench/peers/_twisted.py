"""Stock Twisted: C{twisted.web.proxy} on the default reactor. Run as a program, it is the proxy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet import ssl
from twisted.web.proxy import ReverseProxyResource
from twisted.web.server import Site as WebSite

from bench.peers.base import Program
from bench.processes import free_port
from bench.site import ROOT
from twisted import __version__


class StockTwisted(Program):
    """What Twisted brings along for the purpose."""

    name = "twisted"
    settings = (
        "`twisted.web.proxy.ReverseProxyResource` behind `listenSSL`, epoll reactor, no token "
        "check, access log to a file, a new upstream connection for each request (it keeps none)"
    )

    @classmethod
    def version(cls) -> str:
        """Of the library."""
        return __version__

    def start(self) -> None:
        """As the base class says."""
        self.port = free_port()
        site = self.site
        places = [site.cert, site.key, self.directory / "access.log", self.port, site.port]
        command = [sys.executable, "-m", __spec__.name, *map(str, places)]
        self.launch(command, {"PYTHONPATH": str(ROOT)})


def serve(cert: str, key: str, log: Path, port: int, backend: int, reactor: Any) -> None:
    """Serve until killed."""
    resource = ReverseProxyResource("127.0.0.1", backend, b"")  # type: ignore[no-untyped-call]
    site = WebSite(resource, logPath=str(log))  # type: ignore[no-untyped-call]
    context = ssl.DefaultOpenSSLContextFactory(key, cert)  # type: ignore[no-untyped-call]
    reactor.listenSSL(port, site, context, backlog=4096, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    from twisted.internet import reactor

    serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), reactor)
