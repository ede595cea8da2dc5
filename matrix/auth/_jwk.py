"""Keys that check signatures: an issuer's key set (RFC 7517), read with distrust, and a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

MIN_RSA_BITS = 2048
"""NIST SP 800-131A: shorter RSA keys must not be relied on."""

MAX_KEYS = 64
"""A real set has two or three; the bound keeps a broken issuer from costing memory."""

MIN_LIFETIME = 60.0
"""Seconds a set is kept at least: a C{no-store} must not make each request ask the issuer."""

MAX_LIFETIME = 600.0
"""Seconds a set is kept at most: a key that was revoked works no longer than this."""

# Supabase can sign with RS256, RS512, ES256, ES512 and EdDSA (facts/supabase.md section 2);
# their siblings of 384 bits and PSS are as good. Nothing symmetric, ever.
ACCEPTED_ALGORITHMS = frozenset(
    {"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"}
)

SYMMETRIC = "HS256"
"""The one algorithm of a legacy secret."""

_BY_CURVE = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_ALGORITHMS = get_default_algorithms()
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,9})\"?(?=$|[,\s])", re.IGNORECASE)


class KeyRefusedError(ValueError):
    """A member of a key set that cannot be used to check signatures; says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the one algorithm that it verifies."""

    kid: str
    algorithm: str
    material: Any = field(repr=False)
    """The C{cryptography} public key, equal for equal material; the bytes of a secret."""

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether C{signature} is this key's over C{message}."""
        return _ALGORITHMS[self.algorithm].verify(message, self.material, signature)


def secret_key(secret: str) -> Key:
    """
    The key of a legacy secret, which Supabase uses as it is: its characters, although they
    look like base64 (facts/supabase.md section 2). It has no id and is never in a key set.
    """
    return Key(kid="", algorithm=SYMMETRIC, material=secret.encode())


@dataclass(frozen=True, slots=True)
class KeySet:
    """What a key set document holds: the usable keys by id, and why the others are not."""

    keys: Mapping[str, Key]
    refused: tuple[str, ...]


def _algorithm_of(jwk: Mapping[str, Any]) -> str:
    kty, curve = jwk.get("kty"), jwk.get("crv")
    if kty == "RSA":
        possible, default = _RSA, "RS256"
    else:
        possible = _BY_CURVE.get((str(kty), str(curve)), frozenset())
        default = next(iter(possible), "")
    algorithm = jwk.get("alg", default)
    if algorithm not in possible:
        raise KeyRefusedError(f"kty {kty!r} and crv {curve!r} do not go with alg {algorithm!r}")
    return str(algorithm)


def read_key(jwk: object) -> Key:
    """
    One member of a key set.

    @raise KeyRefusedError: it is no public asymmetric key for checking signatures.
    """
    if not isinstance(jwk, dict):
        raise KeyRefusedError("not a JSON object")
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not kid:
        raise KeyRefusedError("no kid")
    if "d" in jwk or "k" in jwk:
        raise KeyRefusedError("a secret key")
    operations = jwk.get("key_ops", ["verify"])
    checks = isinstance(operations, list) and "verify" in operations
    if jwk.get("use", "sig") != "sig" or not checks:
        raise KeyRefusedError("not for checking signatures")
    name = _algorithm_of(jwk)
    algorithm: Algorithm = _ALGORITHMS[name]
    try:
        public = algorithm.from_jwk(jwk)
    except (PyJWTError, ValueError, KeyError, TypeError) as error:
        raise KeyRefusedError(f"unreadable: {error}") from None
    if jwk["kty"] == "RSA" and public.key_size < MIN_RSA_BITS:
        raise KeyRefusedError(f"an RSA key of under {MIN_RSA_BITS} bits")
    return Key(kid=kid, algorithm=name, material=public)


def read_key_set(document: bytes) -> KeySet:
    """
    A whole key set. A member that cannot be used does not spoil the others; of two with
    the same id the first counts.

    @raise ValueError: the document is no key set at all.
    """
    try:
        loaded = json.loads(document)
    except RecursionError:
        raise ValueError("the key set is nested too deeply") from None
    members = loaded.get("keys") if isinstance(loaded, dict) else None
    if not isinstance(members, list):
        raise ValueError("the key set has no list of keys")  # noqa: TRY004 - a bad document
    keys: dict[str, Key] = {}
    refused = [f"only the first {MAX_KEYS} keys are read"] if len(members) > MAX_KEYS else []
    for place, member in enumerate(members[:MAX_KEYS]):
        try:
            key = read_key(member)
        except KeyRefusedError as error:
            refused.append(f"key {place}: {error}")
            continue
        if keys.setdefault(key.kid, key) is not key:
            refused.append(f"key {place}: the kid of an earlier one")
    return KeySet(keys=keys, refused=tuple(refused))


def lifetime(cache_control: str | None, age: str | None = None) -> float:
    """
    Seconds for which a fetched set counts as fresh (RFC 9111 section 4.2): C{max-age} less
    the C{Age} it already has, within L{MIN_LIFETIME} and L{MAX_LIFETIME}.
    """
    found = _MAX_AGE.search(cache_control or "")
    seconds = float(found.group(1)) if found else 0.0
    if age is not None and age.isascii() and age.isdigit():
        seconds -= float(age[:9])
    return min(max(seconds, MIN_LIFETIME), MAX_LIFETIME)
