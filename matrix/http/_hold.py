"""How much is kept of bodies that nobody reads yet."""

from __future__ import annotations

from matrix.errors import Unavailable

RETRY_AFTER = 1.0
"""Seconds after which a refused client may try again."""


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
