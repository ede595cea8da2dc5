"""A loopback address of its own for each machine."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network

from matrix.errors import ConfigurationError

LOOPBACK = IPv4Network("127.0.0.0/8")

_FIRST, _BLOCKS = 1 << 20, 1 << 12
"""Without the beginning of the net, where everybody's own servers are: 127.16.0.0 and on, in
blocks of 2^12 addresses at first."""


def is_free(address: str, port: int) -> bool:
    """Whether nobody listens there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


class Addresses:
    """
    Gives out addresses. Those of emulators that run at the same time, each with a state
    directory of its own, begin far apart, and what is taken is passed over.
    """

    def __init__(
        self, key: str, network: str | None = None, free: Callable[[str, int], bool] = is_free
    ) -> None:
        """
        @param key: what the emulators differ by.
        @param network: the addresses there are, as C{127.5.0.0/16}; by default, by the key.
        @raise ConfigurationError: the network is none, or is not on loopback.
        """
        self._free = free
        digest = int.from_bytes(blake2b(key.encode(), digest_size=4).digest(), "big")
        if network is None:
            usable = LOOPBACK.num_addresses - 2 * _FIRST
            self._first = int(LOOPBACK[0]) + _FIRST
            self._size = usable
            self._next = (digest * _BLOCKS) % usable
            return
        try:
            chosen = IPv4Network(network)
        except ValueError as error:
            raise ConfigurationError(f"{network!r} is no network: {error}") from None
        if not chosen.subnet_of(LOOPBACK) or chosen.num_addresses < 4:
            raise ConfigurationError(f"{network} is no part of {LOOPBACK} with room for machines")
        self._first, self._size, self._next = int(chosen[0]), chosen.num_addresses, 0

    def give(self, taken: Collection[str], port: int) -> str:
        """
        @param taken: those that machines have.
        @param port: which must be free there.
        @raise ConfigurationError: all of the network is taken.
        """
        for _ in range(self._size):
            number = self._first + self._next
            self._next = (self._next + 1) % self._size
            address = str(IPv4Address(number))
            # Some programs think of .0 and .255 as of networks.
            if number % 256 not in (0, 255) and address not in taken and self._free(address, port):
                return address
        raise ConfigurationError("no loopback address is free for one more machine")
