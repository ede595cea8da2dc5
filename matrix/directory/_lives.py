"""For how long a session is remembered, and what is recorded of who may come in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from matrix.model import UserState

LONGEST_TOKEN = timedelta(days=7)
"""No access token of Supabase's lives longer, so none of an ended session does."""

LONGEST_ABSENCE = timedelta(days=400)
"""For how long a browser keeps the cookie with which it gets new tokens: a session that was
revoked here and lives on at its issuer is remembered for as long."""

KEPT = timedelta(days=30)
"""How long after its newest token has expired a session is still on record: for those who ask who
was here, and so that revoking all sessions of a user reaches those that are away for a while."""

SLACK = timedelta(hours=1)
"""Tokens are taken for a while longer than they say (C{MATRIX_TOKEN_LEEWAY}), and clocks differ."""

LATEST = 253_370_764_800.0
"""Unix seconds, the year 9999: the last that both PostgreSQL and Python can tell. A token that says
more lives until then."""

STATE_EVENTS: Mapping[UserState, str] = {
    UserState.ACTIVE: "unblock",
    UserState.BLOCKED: "block",
    UserState.DELETED: "delete",
}
"""What C{events} call a change of a user's state, by the new state."""

REVOKED = "revoke"
"""What C{events} call it when sessions are revoked."""


def memory_of(ended: bool) -> timedelta:
    """
    For how long after now a revoked session is remembered, at the least.

    @param ended: whether it was ended at its issuer as well.
    """
    return LONGEST_TOKEN + SLACK if ended else LONGEST_ABSENCE
