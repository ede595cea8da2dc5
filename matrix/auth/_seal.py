"""What a browser holds of its sign-in, and what it opens: handles and sealed tokens. Pure."""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from matrix.auth.derive import BROWSER_SESSIONS, SECRET_BYTES, derive_key

NONCE = 12
"""Bytes, the size that AES-GCM is made for. Chosen at random: no key seals often enough for two
to meet, one handle each under the master's, one pair of tokens an hour under a session's."""

_TAG = 16
_ID = 16
HANDLE = (NONCE + _ID + SECRET_BYTES + _TAG) * 4 // 3 + 1
"""Characters of a handle: base64url of that many bytes, without padding."""

_HANDLE_LABEL = b"matrix browser session handle v1"
_TOKENS_LABEL = b"matrix browser session tokens v1\0"


@dataclass(frozen=True, slots=True)
class Latchkey:
    """The key of one sign-in: opens its tokens and nobody else's."""

    id: str
    """Of the sign-in, as L{matrix.model.SignIn} has it."""
    key: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Latchkey:
        """The key of a new sign-in."""
        return cls(str(uuid4()), os.urandom(SECRET_BYTES))

    def seal(self, text: bytes) -> bytes:
        """What L{open} makes C{text} of again."""
        nonce = os.urandom(NONCE)
        return nonce + AESGCM(self.key).encrypt(nonce, text, self._bound)

    def open(self, sealed: bytes) -> bytes | None:
        """What was sealed with this key for this sign-in; C{None} for anything else."""
        return _decrypt(AESGCM(self.key), sealed, self._bound)

    @property
    def _bound(self) -> bytes:
        """With the id in it, what was sealed for one row is worth nothing in another."""
        return _TOKENS_LABEL + self.id.encode()


class Handles:
    """
    The values of session cookies: a latchkey each, sealed with a key of the master secret's,
    so that a cookie cannot be made up, and that the database and a cookie together still
    tell no token.
    """

    def __init__(self, master: str) -> None:
        self._cipher = AESGCM(derive_key(master, BROWSER_SESSIONS))

    def __repr__(self) -> str:
        return "<Handles>"

    def write(self, latchkey: Latchkey) -> bytes:
        """A handle, for a cookie."""
        nonce = os.urandom(NONCE)
        plain = UUID(latchkey.id).bytes + latchkey.key
        sealed = nonce + self._cipher.encrypt(nonce, plain, _HANDLE_LABEL)
        return urlsafe_b64encode(sealed).rstrip(b"=")

    def read(self, handle: bytes) -> Latchkey | None:
        """The latchkey in a handle; C{None} if it is none of ours."""
        if len(handle) != HANDLE:
            return None
        try:
            sealed = urlsafe_b64decode(handle + b"=" * (-len(handle) % 4))
        except ValueError:
            return None
        if urlsafe_b64encode(sealed).rstrip(b"=") != handle:  # bits to spare, odd characters
            return None
        plain = _decrypt(self._cipher, sealed, _HANDLE_LABEL)
        if plain is None:
            return None
        return Latchkey(str(UUID(bytes=plain[:_ID])), plain[_ID:])


def _decrypt(cipher: AESGCM, sealed: bytes, bound: bytes) -> bytes | None:
    try:
        return cipher.decrypt(sealed[:NONCE], sealed[NONCE:], bound)
    except (InvalidTag, ValueError):  # ValueError: too short to be anything
        return None
