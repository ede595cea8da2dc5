"""How many tokens of one client address were refused lately: a bounded table. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import AddressValueError, IPv6Address

WINDOW = 60.0
"""Seconds over which an address may use up what it is granted: the setting is per minute."""

MOST = 10_000
"""Addresses known at a time, about 2 MB. The one that failed longest ago goes first."""

FLOOD = 100.0
"""Failures per second, of all addresses together, beyond which there is a flood. Tokens that have
merely expired do not come so often, and checking so many takes a fortieth of a core."""

FLOOD_WINDOW = 10.0
"""Seconds for which as many may come at once."""

_NETWORK = 8
"""Bytes of an IPv6 address that are its network: whoever has one has all 2**64 addresses of it."""


class Failures:
    """
    A bucket for each client address: so many failures at once, and as many again in a
    minute. An address in whose bucket nothing is left has to wait, its good tokens too, as
    far as they would have to be checked.
    """

    def __init__(self, per_minute: int, now: Callable[[], float], most: int = MOST) -> None:
        """
        @param per_minute: 0 for no limit.
        @param now: seconds, of a clock that never goes back.
        """
        self._cost = WINDOW / per_minute if per_minute else 0.0
        self._now = now
        self._most = most
        # When each bucket will be full again: further ahead than the window means it is empty.
        self._full_at: OrderedDict[str | bytes, float] = OrderedDict()
        self._all_full_at = 0.0

    def __len__(self) -> int:
        """How many addresses are known."""
        return len(self._full_at)

    def wait(self, address: str) -> float:
        """Seconds until a token of this address may be checked; 0.0 if it may be now."""
        if not self._full_at:
            return 0.0
        full_at = self._full_at.get(_network(address))
        if full_at is None:
            return 0.0
        return max(full_at + self._cost - WINDOW - self._now(), 0.0)

    def failed(self, address: str) -> None:
        """Count one failure."""
        now = self._now()
        self._all_full_at = min(max(self._all_full_at, now) + 1 / FLOOD, now + FLOOD_WINDOW)
        if not self._cost:
            return
        network = _network(address)
        self._full_at[network] = max(self._full_at.get(network, now), now) + self._cost
        self._full_at.move_to_end(network)
        while len(self._full_at) > self._most:
            self._full_at.popitem(last=False)

    def flooded(self) -> bool:
        """Whether so many fail, whatever their addresses, that they must come more slowly."""
        # Half a failure's worth to spare, for fractions do not add up exactly.
        return self._all_full_at + 0.5 / FLOOD > self._now() + FLOOD_WINDOW

    def limited(self) -> int:
        """How many addresses have to wait."""
        latest = self._now() + WINDOW - self._cost
        return sum(full_at > latest for full_at in self._full_at.values())


def _network(address: str) -> str | bytes:
    if ":" not in address:
        return address
    try:
        return IPv6Address(address.partition("%")[0]).packed[:_NETWORK]
    except AddressValueError:
        return address
