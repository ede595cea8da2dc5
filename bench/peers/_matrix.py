"""Matrix with everything on: token, route of its user, access log, metrics."""

from __future__ import annotations

import shlex
import shutil
import ssl
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.request import HTTPSHandler, Request, build_opener

from bench.peers.base import Peer, said
from bench.processes import LOAD_CORE, PROXY_CORE, BenchError, Usage, on_core
from bench.site import BACKEND, ROOT
from matrix.testing.running import RunningMatrix
from twisted import __version__ as twisted_version

SETTINGS = {
    "keepalive_timeout": 600,
    "max_connections_per_address": 0,
    "max_user_requests": 20_000,
}
"""What differs from the defaults: idle connections must outlast their measurement, and here one
user at one address is the whole crowd."""


class Matrix(Peer):
    """C{twistd matrix --embedded} whose machine is the backend, awake."""

    name = "matrix"
    settings = (
        "`twistd matrix --embedded`: its own PostgreSQL and key set, ES256 token checked, "
        "per-user route to a machine on a unix socket, access log (JSON) to a file, metrics; "
        "`keepalive_timeout` 600 s, `max_connections_per_address` 0 (off), "
        "`max_user_requests` 20,000"
    )

    @classmethod
    def version(cls) -> str:
        """Ours, and of what it stands on."""
        commit = said(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
        return (
            f"{version('matrix-door')} at {commit} (Twisted {twisted_version}, "
            f"uvloop {version('uvloop')}, Python {sys.version.split()[0]}, "
            f"{' '.join(ssl.OPENSSL_VERSION.split()[:2])})"
        )

    def start(self) -> None:
        """Start it, wake the machine, and look that it is the one that answers."""
        words = [sys.executable, str(BACKEND), "--core", str(LOAD_CORE)]
        command = f"{shlex.join(words)} {{socket}}"
        self.running = running = RunningMatrix(
            local_command=command, access_log=self.directory / "access.log", **SETTINGS
        )
        self._take_site_keys()
        with on_core(PROXY_CORE):
            try:
                running.start()
            except AssertionError as error:
                raise BenchError(f"Matrix did not start: {error}") from None
        self.port = running.door.port
        self._wake()

    def _take_site_keys(self) -> None:
        """One token for all peers: Matrix's own issuer gets the site's keys."""
        self.running.state.mkdir(mode=0o711)
        shutil.copytree(self.site.issuer_keys, self.running.state / "issuer")
        shutil.copytree(Path(self.site.ca).parent, self.running.state / "tls")

    def _wake(self) -> None:
        context = ssl.create_default_context(cafile=str(self.site.ca))
        request = Request(f"{self.url}/1k", headers={"Authorization": f"Bearer {self.token}"})
        with build_opener(HTTPSHandler(context=context)).open(request, timeout=60) as answer:
            if answer.headers["Server"] != "bench" or len(answer.read()) != 1024:
                raise BenchError("Matrix answered with something else than its machine's answer")

    def stop(self) -> None:
        """Stop it with its machine, and remove its state."""
        self.running.close()

    def usage(self) -> Usage:
        """Of the router and its PostgreSQL; machines are nobody's children."""
        return Usage(self.running.pid)
