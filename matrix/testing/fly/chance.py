"""Chance that is the same at each run with the same seed, and identifiers made of it. Pure."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

_BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's, in which ULIDs are written."""


class Chance:
    """
    Draws by name: what one machine draws does not depend on what others did before, so that
    the order of calls that come at the same time changes nothing.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._drawn: Counter[str] = Counter()

    def draw(self, *name: str) -> float:
        """From 0 up to, and without, 1; the next one of this name."""
        key = "/".join(name)
        self._drawn[key] += 1
        return int(self._digest(f"{key}#{self._drawn[key]}")[:16], 16) / 2**64

    def identifier(self, kind: str, number: int, digits: int) -> str:
        """
        @param number: counts the things of a kind.
        @param digits: hexadecimal ones that are wanted.
        """
        return self._digest(f"{kind}={number}")[:digits]

    def _digest(self, text: str) -> str:
        return blake2b(f"{self.seed}:{text}".encode(), digest_size=16).hexdigest()


def ulid(milliseconds: int, number: int) -> str:
    """
    An identifier of 26 characters that sorts by time, then by number (github.com/ulid/spec).

    @param number: below 2^80; counts those that were made.
    """
    value = (milliseconds << 80) | number
    return "".join(_BASE32[(value >> shift) & 31] for shift in range(125, -1, -5))
