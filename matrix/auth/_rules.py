"""The rules that a token must keep: its form, its algorithm, its signature, and each claim."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from matrix.auth._jwk import ACCEPTED_ALGORITHMS, SYMMETRIC, Key
from matrix.auth._refusals import Reason, refusal
from matrix.model import Principal, user_id

MAX_TOKEN = 16 * 1024
"""Bytes. Supabase's tokens have 0.8 to 2 KB, more with metadata; heads end at 64 KB."""

IAT_AHEAD = 120.0
"""Seconds by which C{iat} may lie in the future even with a small leeway: skew between the
issuer's hosts has refused valid users elsewhere (facts/supabase.md section 4), and C{iat}
protects nothing that C{exp} does not."""

_LATEST = 2.0**53
"""Unix time beyond which a date is nonsense, and a float no longer exact."""

_SHAPE = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_KEY_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c"})
_STRONG = frozenset({"aal2", "aal3"})

Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Policy:
    """Whose tokens are accepted, and of whom."""

    issuer: str
    audience: str = "authenticated"
    role: str = "authenticated"
    leeway: float = 30.0
    """Seconds of clock skew tolerated in C{exp} and C{nbf}."""
    clients: frozenset[str] = frozenset()
    """OAuth clients whose tokens are accepted; a user's own sign-in has none."""
    anonymous: bool = False
    """Whether anonymous users may come in: each would get a machine."""
    second_factor: bool = False
    """Whether only sign-ins of assurance level C{aal2} are accepted."""


class SignedToken(NamedTuple):
    """A token taken apart, nothing of it believed yet."""

    algorithm: str
    kid: str
    """Empty if it names no key, which only a symmetric one may."""
    message: bytes
    """What the signature is over."""
    payload: bytes
    signature: bytes

    def __repr__(self) -> str:
        return "<SignedToken>"


def _decode(segment: bytes) -> bytes:
    try:
        decoded = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError:
        raise refusal(Reason.MALFORMED) from None
    # Spare bits at the end would let several spellings pass as one token.
    if urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise refusal(Reason.MALFORMED)
    return decoded


def _load_object(document: bytes) -> dict[str, Any]:
    try:
        loaded = json.loads(document)
    except (ValueError, RecursionError):
        raise refusal(Reason.MALFORMED) from None
    if not isinstance(loaded, dict):
        raise refusal(Reason.MALFORMED)
    return loaded


def take_apart(token: bytes, *, symmetric: bool = False) -> SignedToken:
    """
    The parts of a token in compact form (RFC 7515 section 3.1), cheaply refusing whatever
    could never be verified.

    @param symmetric: whether there is a secret, with which alone HS256 can be verified.
    @raise matrix.errors.Unauthorized: C{malformed}, C{algorithm}, C{embedded-key} or
        C{unknown-key} (no key is named).
    """
    parts = _SHAPE.fullmatch(token) if len(token) <= MAX_TOKEN else None
    if parts is None:
        raise refusal(Reason.MALFORMED)
    header = _load_object(_decode(parts[1]))
    algorithm, kid = _key_named(header, symmetric)
    return SignedToken(algorithm, kid, token[: parts.end(2)], _decode(parts[2]), _decode(parts[3]))


def _key_named(header: Claims, symmetric: bool) -> tuple[str, str]:
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise refusal(Reason.ALGORITHM)
    by_secret = symmetric and algorithm == SYMMETRIC
    if algorithm not in ACCEPTED_ALGORITHMS and not by_secret:
        raise refusal(Reason.ALGORITHM)
    if not _KEY_HEADERS.isdisjoint(header):
        raise refusal(Reason.EMBEDDED_KEY)
    if "crit" in header:
        # RFC 7515 section 4.1.11: an extension that is not understood must be refused.
        raise refusal(Reason.MALFORMED)
    if by_secret:
        return algorithm, ""  # Supabase's older tokens name no key, and there is but one
    if not isinstance(kid, str) or not kid:
        raise refusal(Reason.UNKNOWN_KEY)
    return algorithm, kid


def claimed_issuer(token: SignedToken) -> str:
    """
    Whose token it says it is; nothing of it is verified yet.

    @raise matrix.errors.Unauthorized: C{malformed}, or C{issuer}: it does not say.
    """
    issuer = _load_object(token.payload).get("iss")
    if not isinstance(issuer, str):
        raise refusal(Reason.ISSUER)
    return issuer


def issuer_of(token: bytes) -> str:
    """
    L{claimed_issuer} of a token that was found good, and so its issuer in truth.

    @raise matrix.errors.Unauthorized: it cannot have been found good.
    """
    return claimed_issuer(take_apart(token, symmetric=True))


def check_signature(token: SignedToken, key: Key) -> Claims:
    """
    The claims of a token that C{key} signed. The key says which algorithm counts; the
    token may only agree.

    @raise matrix.errors.Unauthorized: C{algorithm}, C{signature} or C{malformed}.
    """
    if token.algorithm != key.algorithm:
        raise refusal(Reason.ALGORITHM)
    if not key.verifies(token.message, token.signature):
        raise refusal(Reason.SIGNATURE)
    return _load_object(token.payload)


def _date(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal(Reason.MALFORMED)
    # Python's JSON reads NaN, for which every comparison is false: so ask for what is right.
    if not abs(value) <= _LATEST:
        raise refusal(Reason.MALFORMED)
    return float(value)


def _check_dates(claims: Claims, policy: Policy, now: float) -> float:
    expires_at = _date(claims, "exp")
    if expires_at is None:
        raise refusal(Reason.MALFORMED)
    if now >= expires_at + policy.leeway:
        raise refusal(Reason.EXPIRED)
    not_before, issued_at = _date(claims, "nbf"), _date(claims, "iat")
    if not_before is not None and now < not_before - policy.leeway:
        raise refusal(Reason.NOT_YET_VALID)
    if issued_at is not None and now < issued_at - max(policy.leeway, IAT_AHEAD):
        raise refusal(Reason.NOT_YET_VALID)
    return expires_at


def _check_purpose(claims: Claims, policy: Policy) -> None:
    if claims.get("iss") != policy.issuer:
        raise refusal(Reason.ISSUER)
    audience = claims.get("aud")
    if audience != policy.audience and not (
        isinstance(audience, list) and policy.audience in audience
    ):
        raise refusal(Reason.AUDIENCE)
    if claims.get("role") != policy.role:
        raise refusal(Reason.ROLE)


def _is_one_of(value: object, accepted: frozenset[str]) -> bool:
    return isinstance(value, str) and value in accepted


def _check_kind(claims: Claims, policy: Policy) -> None:
    client = claims.get("client_id")
    if client and not _is_one_of(client, policy.clients):
        raise refusal(Reason.CLIENT)
    if claims.get("is_anonymous") and not policy.anonymous:
        raise refusal(Reason.ANONYMOUS)
    if policy.second_factor and not _is_one_of(claims.get("aal"), _STRONG):
        raise refusal(Reason.ASSURANCE)


def _uuid(claims: Claims, name: str, reason: Reason) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or _UUID.fullmatch(value) is None:
        raise refusal(reason)
    return value.lower()


def judge(claims: Claims, policy: Policy, now: float) -> Principal:
    """
    Whom these claims, whose signature was checked, speak for.

    Being signed is not enough: Supabase's API keys are signed too (facts/supabase.md
    section 3), and so are other audiences' tokens.

    @param now: unix time, seconds.
    @raise matrix.errors.Unauthorized: one of the claims breaks a rule.
    """
    expires_at = _check_dates(claims, policy, now)
    _check_purpose(claims, policy)
    subject = user_id(_uuid(claims, "sub", Reason.SUBJECT))
    session = _uuid(claims, "session_id", Reason.SESSION)
    _check_kind(claims, policy)
    email = claims.get("email")
    return Principal(
        user_id=subject,
        session_id=session,
        expires_at=expires_at,
        email=email if isinstance(email, str) else "",
    )
