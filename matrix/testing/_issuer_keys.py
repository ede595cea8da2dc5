"""The local issuer's signing keys, each in a file named for its state."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm, get_default_algorithms

from matrix.errors import ConfigurationError

# The states in which a key is listed (facts/supabase.md section 2); a revoked key has no file.
CURRENT, STANDBY, PREVIOUS = "current", "standby", "previous"
STATES = (CURRENT, STANDBY, PREVIOUS)

_ALGORITHMS = get_default_algorithms()


@dataclass(frozen=True)
class SigningKey:
    """A private key with the id and algorithm that the key set gives it."""

    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(repr=False)

    @property
    def algorithm(self) -> str:
        return "RS256" if isinstance(self.private, rsa.RSAPrivateKey) else "ES256"

    @property
    def kid(self) -> str:
        """A UUID as Supabase's are, always the same for the same key."""
        encoded = self.private.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return str(uuid5(NAMESPACE_URL, f"key:{sha256(encoded).hexdigest()}"))

    @property
    def public_pem(self) -> bytes:
        """What an attacker would use as the secret in a key confusion."""
        return self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def jwk(self) -> Mapping[str, Any]:
        """The public half, with the members that Supabase's key set has."""
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            members = RSAAlgorithm.to_jwk(public, as_dict=True)
        else:
            members = ECAlgorithm.to_jwk(public, as_dict=True)
        return members | {
            "kid": self.kid,
            "alg": self.algorithm,
            "use": "sig",
            "key_ops": ["verify"],
            "ext": True,
        }

    def sign(self, message: bytes) -> bytes:
        return _ALGORITHMS[self.algorithm].sign(message, self.private)


def create_key(algorithm: str = "ES256") -> SigningKey:
    """A new key for C{ES256} or C{RS256}."""
    if algorithm == "RS256":
        return SigningKey(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    return SigningKey(ec.generate_private_key(ec.SECP256R1()))


def write_private(path: Path, content: bytes) -> bool:
    """
    Create a file of mode 0600 in one step, never replacing one.

    @return: whether this call created it; otherwise another process was faster.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.link(name, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(name)
    return True


def read_private(path: Path) -> bytes:
    """
    Read a file that only its owner may read.

    @raise ConfigurationError: others may read it.
    """
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"{path} can be read by others: run chmod 600 on it")
    return path.read_bytes()


class KeyRing:
    """The keys of one directory: C{current.pem}, and perhaps C{standby.pem}, C{previous.pem}."""

    def __init__(self, directory: Path) -> None:
        """
        @raise ConfigurationError: a key file is unreadable for us, or readable for others.
        """
        self._directory = directory
        if not self._path(CURRENT).exists():
            self._write(CURRENT, create_key())
        self._keys = {state: self._read(state) for state in STATES if self._path(state).exists()}

    def __getitem__(self, state: str) -> SigningKey:
        return self._keys[state]

    def listed(self) -> list[Mapping[str, Any]]:
        """The members of the key set, in the order of L{STATES}."""
        return [self._keys[state].jwk() for state in STATES if state in self._keys]

    def by_kid(self, kid: object) -> SigningKey | None:
        return next((key for key in self._keys.values() if key.kid == kid), None)

    def prepare(self, algorithm: str = "ES256") -> SigningKey:
        """List a standby key that does not sign yet."""
        self._path(STANDBY).unlink(missing_ok=True)
        self._write(STANDBY, create_key(algorithm))
        self._keys[STANDBY] = self._read(STANDBY)
        return self._keys[STANDBY]

    def rotate(self) -> SigningKey:
        """Sign with the standby key (a new one if there is none); the old one is still listed."""
        if STANDBY not in self._keys:
            self.prepare()
        os.replace(self._path(CURRENT), self._path(PREVIOUS))
        os.replace(self._path(STANDBY), self._path(CURRENT))
        self._keys = {PREVIOUS: self._keys[CURRENT], CURRENT: self._keys[STANDBY]}
        return self._keys[CURRENT]

    def revoke(self) -> None:
        """List the previous key no more."""
        self._path(PREVIOUS).unlink(missing_ok=True)
        self._keys.pop(PREVIOUS, None)

    def _path(self, state: str) -> Path:
        return self._directory / f"{state}.pem"

    def _write(self, state: str, key: SigningKey) -> None:
        encoded = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(self._path(state), encoded)

    def _read(self, state: str) -> SigningKey:
        path = self._path(state)
        try:
            private = load_pem_private_key(read_private(path), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{path} is no usable private key: {error}") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ConfigurationError(f"{path} holds no EC or RSA key")
        return SigningKey(private)
