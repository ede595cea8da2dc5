"""JupyterHub's configurable-http-proxy: per-user routes, in Node.js."""

from __future__ import annotations

from bench.peers.base import Program, said
from bench.processes import free_port
from bench.site import CACHE

PROXY = CACHE / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"


class ConfigurableHttpProxy(Program):
    """One default route, as its users have one per user."""

    name = "chp"
    settings = (
        "configurable-http-proxy: no token check, no access log (it has none), upstream "
        "keep-alive over TCP (it keeps none on unix sockets), `--log-level error`"
    )

    @classmethod
    def version(cls) -> str:
        """Its own, and Node.js's."""
        return f"{said(['node', str(PROXY), '--version'])} (Node.js {said(['node', '--version'])})"

    def start(self) -> None:
        """As the base class says."""
        self.port = free_port()
        site, options = self.site, ["--log-level", "error", "--keep-alive-timeout", "600000"]
        options += ["--ip", "127.0.0.1", "--port", str(self.port)]
        options += ["--ssl-cert", str(site.cert), "--ssl-key", str(site.key)]
        options += ["--default-target", f"http://127.0.0.1:{site.port}"]
        options += ["--api-socket", str(self.directory / "api.sock")]
        self.launch(["node", str(PROXY), *options])
