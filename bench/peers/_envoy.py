"""Envoy with C{jwt_authn}: as it comes, and with its token cache."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

from bench.peers.base import Program, said
from bench.processes import free_port

ENVOY = str(Path(sys.executable).with_name("envoy"))
TYPE = "type.googleapis.com/envoy.extensions"
UNLIMITED = 1_000_000


class Envoy(Program):
    """The default: every request's signature is checked."""

    name = "envoy"
    settings = (
        "`--concurrency 1`, HTTP/1.1, `jwt_authn` with the key set inline, access log to a "
        "file, upstream keep-alive over the unix socket, circuit breakers and stream "
        "timeouts off"
    )
    cache: ClassVar[dict[str, Any]] = {}

    @classmethod
    def version(cls) -> str:
        """As it says."""
        # The program's path comes first, and has slashes too.
        _, _, built = said([ENVOY, "--version"]).rpartition(" version: ")
        return built.split("/")[1] if "/" in built else built

    def start(self) -> None:
        """As the base class says."""
        self.port = free_port()
        configuration = self.directory / "envoy.json"
        configuration.write_text(json.dumps(self.configuration()))
        command = [ENVOY, "-c", str(configuration), "--concurrency", "1", "-l", "warn"]
        self.launch([*command, "--disable-hot-restart"])

    def configuration(self) -> dict[str, Any]:
        """The static configuration."""
        chain = {
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": self._tls(),
            },
            "filters": [
                {
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": self._http(),
                }
            ],
        }
        listener = {
            "name": "public",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": self.port}},
            "filter_chains": [chain],
        }
        return {"static_resources": {"listeners": [listener], "clusters": [self._cluster()]}}

    def _tls(self) -> dict[str, Any]:
        site = self.site
        certificate = {
            "certificate_chain": {"filename": str(site.cert)},
            "private_key": {"filename": str(site.key)},
        }
        return {
            "@type": f"{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_certificates": [certificate],
                "alpn_protocols": ["http/1.1"],
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            },
        }

    def _http(self) -> dict[str, Any]:
        manager = f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"
        log = {
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": f"{TYPE}.access_loggers.file.v3.FileAccessLog",
                "path": str(self.directory / "access.log"),
            },
        }
        route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}
        router = {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"},
        }
        host = {"name": "all", "domains": ["*"], "routes": [route]}
        return {
            "@type": manager,
            "stat_prefix": "public",
            "codec_type": "HTTP1",
            "stream_idle_timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "access_log": [log],
            "route_config": {"virtual_hosts": [host]},
            "http_filters": [self._jwt(), router],
        }

    def _jwt(self) -> dict[str, Any]:
        provider = {
            "issuer": self.site.issuer,
            "audiences": ["authenticated"],
            "forward": True,
            "local_jwks": {"inline_string": self.site.jwks},
            **self.cache,
        }
        rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "supabase"}}
        return {
            "name": "envoy.filters.http.jwt_authn",
            "typed_config": {
                "@type": f"{TYPE}.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": {"supabase": provider},
                "rules": [rule],
            },
        }

    def _cluster(self) -> dict[str, Any]:
        endpoint = {"endpoint": {"address": {"pipe": {"path": self.site.socket}}}}
        limits = ("max_connections", "max_pending_requests", "max_requests")
        return {
            "name": "backend",
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [dict.fromkeys(limits, UNLIMITED)]},
            "load_assignment": {
                "cluster_name": "backend",
                "endpoints": [{"lb_endpoints": [endpoint]}],
            },
        }


class CachedEnvoy(Envoy):
    """With the cache of checked tokens that it has but does not use by default."""

    name = "envoy-cached"
    settings = "the same with `jwt_cache_config` (1,000 tokens)"
    cache: ClassVar[dict[str, Any]] = {"jwt_cache_config": {"jwt_cache_size": 1000}}
