"""Who sent a request: the peer, or whom proxies that are trusted say it was."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import TYPE_CHECKING

from matrix.http._exchange import Exchange
from matrix.http._heads import RequestHead

if TYPE_CHECKING:
    from matrix.http._server import ServerConnection

_FOR = b"X-Forwarded-For: "


def forwarded(peer: str, tls: str) -> bytes:
    """The header lines that tell a machine of a client, each with CRLF."""
    return b"%b%b\r\nX-Forwarded-Proto: %b\r\n" % (
        _FOR,
        peer.encode(),
        b"https" if tls else b"http",
    )


class TrustedProxies:
    """The addresses whose C{X-Forwarded-For} is believed."""

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network] = ()) -> None:
        self._networks = tuple(networks)

    def __contains__(self, address: object) -> bool:
        if not self._networks:
            return False
        found = _hop(str(address).partition("%")[0])
        return found is not None and any(found in network for network in self._networks)

    def client(self, peer: str, hops: bytes) -> str:
        """
        The client behind a peer that is trusted: the right-most address in C{hops} that is
        not itself trusted, since anybody may have written what stands left of it. Where a
        hop is no address (C{unknown}), whoever reported it is as far as can be told.

        @param hops: the value of C{X-Forwarded-For}.
        """
        client = peer
        for hop in reversed(hops.decode("latin-1").split(",")):
            address = _hop(hop.strip(" \t"))
            if address is None:
                break
            client = str(address)
            if client not in self:
                break
        return client


NOBODY = TrustedProxies()


class ForwardedExchange(Exchange):
    """An exchange on a connection from a proxy that is trusted."""

    __slots__ = ("_hops",)

    def __init__(self, connection: ServerConnection, request: RequestHead, request_id: str) -> None:
        super().__init__(connection, request, request_id)
        self._hops = request.get(b"x-forwarded-for") or b""
        self.peer = connection.factory.proxies.client(connection.peer, self._hops)

    @property
    def forwarded(self) -> bytes:
        own = super().forwarded
        return own if not self._hops else b"%b%b, %b" % (_FOR, self._hops, own[len(_FOR) :])


def _hop(text: str) -> IPv4Address | IPv6Address | None:
    """An address as it may stand in C{X-Forwarded-For}: with a port, or in brackets."""
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(":" + port):
            return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        # A zone says nothing to others, and may be any text.
        return None if address.scope_id else address.ipv4_mapped or address
    return address


def _is_port(text: str) -> bool:
    return text[:1] == ":" and text[1:].isascii() and text[1:].isdecimal() and len(text) <= 6
