"""Why a token is refused: the stable reason codes, their sentences, and the challenge header."""

from __future__ import annotations

from enum import StrEnum

from matrix.errors import Unauthorized

REALM = "matrix"


class Reason(StrEnum):
    """
    The code of each rule that a token can break.

    Programs, metrics and the C{WWW-Authenticate} header carry these words: one may be
    added, none renamed. No code tells which key failed.
    """

    MISSING = "missing"
    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    EMBEDDED_KEY = "embedded-key"
    UNKNOWN_KEY = "unknown-key"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    ROLE = "role"
    SUBJECT = "subject"
    SESSION = "session"
    CLIENT = "client"
    ANONYMOUS = "anonymous"
    ASSURANCE = "assurance"
    TICKET = "ticket"
    REVOKED = "revoked"
    SIGNED_OUT = "signed-out"


_SENTENCES = {
    Reason.MISSING: "send an access token, or sign in",
    Reason.MALFORMED: "the token is not a well-formed JWT",
    Reason.ALGORITHM: "the token's algorithm is not accepted",
    Reason.EMBEDDED_KEY: "the token must not bring or point to its own key",
    Reason.UNKNOWN_KEY: "the token was not signed by the configured issuer",
    Reason.SIGNATURE: "the token's signature does not match",
    Reason.EXPIRED: "the token has expired; refresh it",
    Reason.NOT_YET_VALID: "the token is not valid yet; check the clocks",
    Reason.ISSUER: "the token comes from another issuer",
    Reason.AUDIENCE: "the token is meant for another audience",
    Reason.ROLE: "the token's role is not that of a signed-in user",
    Reason.SUBJECT: "the token names no user",
    Reason.SESSION: "the token names no session",
    Reason.CLIENT: "tokens of this OAuth client are not accepted",
    Reason.ANONYMOUS: "anonymous users are not accepted; sign in",
    Reason.ASSURANCE: "a stronger sign-in is needed: add a second factor",
    Reason.TICKET: "a ticket opens one WebSocket or event stream within 30 s; get another",
    Reason.REVOKED: "the session was ended; sign in again",
    Reason.SIGNED_OUT: "you are not signed in any more; sign in again",
}


def _challenge(reason: Reason) -> bytes:
    # RFC 6750 section 3.1: a request without any credentials gets no error code.
    challenge = f'Bearer realm="{REALM}"'
    if reason is not Reason.MISSING:
        challenge += (
            f', error="invalid_token", error_description="{reason.value}: {_SENTENCES[reason]}"'
        )
    return challenge.encode("ascii")


_HEADERS = {reason: ((b"www-authenticate", _challenge(reason)),) for reason in Reason}


def refusal(reason: Reason) -> Unauthorized:
    """The error to raise for a token that breaks this rule (RFC 6750 section 3)."""
    sentence = _SENTENCES[reason]
    return Unauthorized(
        f"{sentence[0].upper()}{sentence[1:]}.", reason=reason.value, headers=_HEADERS[reason]
    )
