"""Tokens among the subprotocols that a WebSocket offers, as browsers can send no other. Pure.

A browser fails a connection whose offer got no answer (WHATWG WebSockets, "establish a WebSocket
connection"), and the answer must not be the secret. So a client offers L{MARKER} too, which the
router chooses when the machine chooses nothing.
"""

from __future__ import annotations

from matrix.errors import BadRequest

MARKER = b"matrix"
"""The subprotocol that means only that a token may stand beside it; never sent to a machine."""

_TOKEN_PREFIXES = (b"matrix.jwt.", b"jwt-")
"""Before the token: ours, and that of Supabase's Edge Functions (facts/supabase.md section 7)."""


def offered_token(offer: bytes) -> bytes | None:
    """
    The token that a client offers.

    @param offer: the value of C{Sec-WebSocket-Protocol}.
    @raise BadRequest: there are two.
    """
    if b"jwt" not in offer:
        return None
    tokens = [
        member.removeprefix(prefix)
        for member in _members(offer)
        for prefix in _TOKEN_PREFIXES
        if member.startswith(prefix)
    ]
    if len(tokens) > 1:
        raise BadRequest(
            "Two subprotocols hold a token; offer one.", reason="two-subprotocol-tokens"
        )
    return tokens[0] if tokens else None


def without_tokens(offer: bytes) -> bytes | None:
    """An offer without what is not the machine's; the rest stays to the byte. C{None} if
    nothing remains."""
    parts = offer.split(b",")
    kept = [part for part in parts if not _is_ours(part.strip(b" \t"))]
    if len(kept) == len(parts):
        return offer
    remaining = b",".join(kept)
    if not remaining.strip(b", \t"):
        return None
    return remaining if kept[0] is parts[0] else remaining.lstrip(b" \t")


def has_marker(offer: bytes) -> bool:
    """Whether the client will take L{MARKER} for an answer."""
    return MARKER in offer and MARKER in _members(offer)


def harmless_protocol(offer: bytes) -> bytes | None:
    """A subprotocol that can be chosen for a connection that is only to be closed again."""
    for member in _members(offer):
        if member and not member.startswith(_TOKEN_PREFIXES):
            return member
    return None


def _members(offer: bytes) -> list[bytes]:
    return [member.strip(b" \t") for member in offer.split(b",")]


def _is_ours(member: bytes) -> bool:
    return member == MARKER or member.startswith(_TOKEN_PREFIXES)
