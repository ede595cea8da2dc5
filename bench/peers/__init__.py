"""The proxies that are compared, by name."""

from __future__ import annotations

from collections.abc import Mapping

from bench.peers._caddy import Caddy
from bench.peers._chp import ConfigurableHttpProxy
from bench.peers._envoy import CachedEnvoy, Envoy
from bench.peers._matrix import Matrix
from bench.peers._nginx import Nginx
from bench.peers._twisted import StockTwisted
from bench.peers.base import Direct, Peer

__all__ = ["PEERS", "Peer"]

PEERS: Mapping[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        Matrix,
        CachedEnvoy,
        Envoy,
        Caddy,
        Nginx,
        ConfigurableHttpProxy,
        StockTwisted,
        Direct,
    )
}
