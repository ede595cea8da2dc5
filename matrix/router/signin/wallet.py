"""The tokens of one sign-in, as they are sealed in the directory. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from matrix.auth import Grant, Latchkey

AHEAD = 60.0
"""Seconds before a token expires that it is refreshed; auth-js has 90 (facts/supabase.md section
5), and pages of ours have no token of their own to fall behind with."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """An access token, what gets the next, and when that is due."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    due: float
    """Unix time, seconds, from which on the tokens are to be refreshed."""

    @classmethod
    def of(cls, grant: Grant, now: float) -> Wallet:
        """
        What was granted.

        @param now: unix time, seconds.
        """
        # Of a short life a fixed part would be all.
        ahead = min(AHEAD, grant.life / 2)
        return cls(grant.access_token, grant.refresh_token, now + grant.life - ahead)

    def seal(self, latchkey: Latchkey) -> bytes:
        """As it is kept."""
        return latchkey.seal(json.dumps(asdict(self)).encode())

    @classmethod
    def open(cls, latchkey: Latchkey, sealed: bytes) -> Wallet | None:
        """What L{seal} made; C{None} if this is not the key to it."""
        text = latchkey.open(sealed)
        return None if text is None else cls(**json.loads(text))
