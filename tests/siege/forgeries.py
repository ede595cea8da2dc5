"""Tokens that nobody may come in with, each one of its own: what a forger would try."""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from uuid import uuid4

from matrix.testing.issuer import LocalIssuer

SIGNATURE_BYTES = 64
"""Of ES256."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def encode(part: bytes) -> str:
    """As the parts of a token are written."""
    return urlsafe_b64encode(part).rstrip(b"=").decode()


class Forger:
    """Knows the issuer's key set, its tokens' form, and one user's real token."""

    def __init__(self, issuer: LocalIssuer, name: str) -> None:
        self._issuer = issuer
        self._name = name
        self._kid = issuer.keys["current"].kid
        self._real = issuer.mint(name)
        self.kinds: dict[str, Callable[[], str]] = {
            "random kid": self.random_kid,
            "bad signature": self.bad_signature,
            "payload changed": self.payload_changed,
            "signature changed": self.signature_changed,
            "alg none": self.unsigned,
            "HS256 with the public key": self.confused,
        }

    def make(self, count: int) -> Iterator[tuple[str, str]]:
        """So many, of each kind in turn: the kind and the token."""
        for kind, make in islice(cycle(self.kinds.items()), count):
            yield kind, make()

    def random_kid(self) -> str:
        """Signed by a key of which nobody has heard."""
        return self._invented({"alg": "ES256", "typ": "JWT", "kid": str(uuid4())})

    def bad_signature(self) -> str:
        """Another user's, with the issuer's own key named."""
        return self._invented({"alg": "ES256", "typ": "JWT", "kid": self._kid})

    def payload_changed(self) -> str:
        """A real token, of which one letter of the claims is another."""
        return self._changed(1)

    def signature_changed(self) -> str:
        """A real token, of which one letter of the signature is another."""
        return self._changed(2)

    def unsigned(self) -> str:
        """C{alg} is C{none}."""
        return self._issuer.mint(self._name, alg="none")

    def confused(self) -> str:
        """Signed with the public key, as if it were a shared secret."""
        return self._issuer.mint(self._name, alg="HS256")

    def _invented(self, header: dict[str, str]) -> str:
        claims = self._issuer.claims(self._name) | {"sub": str(uuid4())}
        parts = [json.dumps(part).encode() for part in (header, claims)]
        return ".".join(map(encode, (*parts, secrets.token_bytes(SIGNATURE_BYTES))))

    def _changed(self, part: int) -> str:
        parts = self._real.split(".")
        at = secrets.randbelow(len(parts[part]) - 1)  # the last letter may be spare bits
        letter = parts[part][at]
        while letter == parts[part][at]:
            letter = secrets.choice(_LETTERS)
        parts[part] = parts[part][:at] + letter + parts[part][at + 1 :]
        return ".".join(parts)
