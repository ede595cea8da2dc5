"""Caddy."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.peers.base import Program, said
from bench.processes import free_port

CADDY = str(Path(sys.executable).with_name("caddy"))

CONFIGURATION = """
{{
    admin off
    auto_https off
    persist_config off
    default_bind 127.0.0.1
    servers {{
        protocols h1
        timeouts {{
            idle 600s
        }}
    }}
}}
https://localhost:{port} {{
    tls {cert} {key}
    log {{
        output file {directory}/access.log
    }}
    reverse_proxy unix/{socket} {{
        flush_interval -1
        transport http {{
            keepalive_idle_conns_per_host 1024
        }}
    }}
}}
"""


class Caddy(Program):
    """Checks no token either: that needs a module that is not in the standard build."""

    name = "caddy"
    settings = (
        "`GOMAXPROCS=1`, HTTP/1.1, no token check, access log (JSON) to a file, upstream "
        "keep-alive over the unix socket"
    )

    @classmethod
    def version(cls) -> str:
        """As it says."""
        return said([CADDY, "version"]).partition(" ")[0]

    def start(self) -> None:
        """As the base class says."""
        self.port = free_port()
        site, configuration = self.site, self.directory / "Caddyfile"
        configuration.write_text(
            CONFIGURATION.format(
                directory=self.directory,
                cert=site.cert,
                key=site.key,
                socket=site.socket,
                port=self.port,
            )
        )
        home = {name: str(self.directory) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        command = [CADDY, "run", "--config", str(configuration), "--adapter", "caddyfile"]
        self.launch(command, {"GOMAXPROCS": "1", **home})
