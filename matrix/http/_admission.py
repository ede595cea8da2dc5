"""Who may connect: bounds on open connections, in all and from one address."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable
from typing import Any

from matrix.errors import MatrixError, TooManyRequests, Unavailable

RESERVED_FILES = 256
"""File descriptors that clients cannot take: for machines, the database, logs, the listener."""

TELLING_MAX = 64
"""Refused clients that are being told so at once; more are cut off without a word, or those
who are to be refused would hold more files than those who are served."""

RETRY_AFTER = 1.0
"""Seconds after which a refused client may try again."""


def files_for_clients() -> int:
    """How many file descriptors this process may give to clients and their machines."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - RESERVED_FILES)


class Admission:
    """Counts a listener's connections, and says who must go again."""

    def __init__(self, total: int, per_address: int, others: Callable[[], int] = lambda: 0) -> None:
        """
        @param total: open connections at once, C{others} included.
        @param per_address: open connections at once from one address; 0 for no bound.
        @param others: how many file descriptors are in use besides, for machines.
        """
        self._total = total
        self._per_address = per_address
        self._others = others
        self._open = 0
        self._by_address: Counter[str] = Counter()
        self.telling = 0
        """Refused clients that are being told so."""
        self.refused = 0
        """How many were refused so far."""

    def enter(self, address: str) -> MatrixError | None:
        """Count a connection; why it must end, or C{None} if it may stay."""
        self._open += 1
        self._by_address[address] += 1
        if self._open + self._others() > self._total:
            self.refused += 1
            return Unavailable(
                "Too many connections are open.", reason="connections", retry_after=RETRY_AFTER
            )
        if self._per_address and self._by_address[address] > self._per_address:
            self.refused += 1
            return TooManyRequests(
                f"More than {self._per_address} connections are open from your address.",
                reason="connections-per-address",
                retry_after=RETRY_AFTER,
            )
        return None

    def leave(self, address: str) -> None:
        """A connection that was counted is closed."""
        self._open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class Visit:
    """One connection's stay."""

    __slots__ = ("_address", "_admission", "_told")

    def __init__(self, admission: Admission, address: str) -> None:
        self._admission = admission
        self._address = address
        self._told = False

    def enter(self, refuse: Callable[[MatrixError], None], cut_off: Callable[[], None]) -> None:
        """Stay, or be told at once why not."""
        admission = self._admission
        refusal = admission.enter(self._address)
        if refusal is None:
            return
        if admission.telling >= TELLING_MAX:
            cut_off()
            return
        self._told = True
        admission.telling += 1
        refuse(refusal)

    def leave(self) -> None:
        """The connection is closed."""
        self._admission.leave(self._address)
        self._admission.telling -= self._told


class Hold:
    """Bounds what is kept of bodies that nobody reads yet, over all connections."""

    def __init__(self, limit: int) -> None:
        """@param limit: bytes."""
        self._limit = limit
        self.bytes = 0

    def take(self, size: int) -> None:
        """
        Keep so many bytes more; less than none when they are read, or thrown away.

        @raise Unavailable: that would be too much; nothing was counted.
        """
        if self.bytes + size > self._limit:
            raise Unavailable(
                "Too many bodies are waiting for their machines.",
                reason="held-bytes",
                retry_after=RETRY_AFTER,
            )
        self.bytes += size


class Kept:
    """What one connection keeps of its present request's body."""

    __slots__ = ("_hold", "bytes")

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self.bytes = 0

    def keep(self, size: int) -> None:
        """
        Have so many bytes counted, instead of those so far.

        @raise Unavailable: all connections together keep too much.
        """
        self._hold.take(size - self.bytes)
        self.bytes = size


def peer_name(place: Any) -> str:
    """The client's address: an IPv4 one as such, even on a socket for both families."""
    if not isinstance(place, tuple):
        return "local"
    host = str(place[0])
    return host.removeprefix("::ffff:") if "." in host else host
