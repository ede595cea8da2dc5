"""The part of the admin API that says who may come in: users' states and sessions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from matrix.api import Api, send_json
from matrix.directory.interfaces import Erasing, IDirectory
from matrix.errors import BadRequest, Conflict
from matrix.http.interfaces import Exchange
from matrix.model import Session, User, UserState
from matrix.model import user_id as canonical
from matrix.router.asking import (
    CAUSE,
    find_user,
    limit_in,
    query_of,
    reaching_the_directory,
    time_json,
)

SESSIONS_LIMIT: Final = 100
"""Sessions in one answer unless asked for otherwise: far more than a person has."""

STATES: Final = {
    "block": UserState.BLOCKED,
    "unblock": UserState.ACTIVE,
    "delete": UserState.DELETED,
}
"""What an operator can do to a user, and the state that follows."""


class AccessApi:
    """Blocks, unblocks and deletes users; shows and revokes sessions."""

    def __init__(self, directory: IDirectory, now: Callable[[], float]) -> None:
        """
        @param now: the unix time, seconds, by which tokens expire.
        """
        self._directory = directory
        self._now = now

    def join(self, api: Api) -> None:
        """Be part of an admin API."""
        for verb, state in STATES.items():
            api.add("POST", f"/admin/v1/users/<user>/{verb}", partial(self._set_state, state=state))
        api.add("GET", "/admin/v1/users/<user>/sessions", self._sessions)
        api.add("POST", "/admin/v1/users/<user>/sessions/revoke", self._revoke_all)
        api.add("POST", "/admin/v1/sessions/<session>/revoke", self._revoke)

    async def _set_state(self, exchange: Exchange, user: str, state: UserState) -> None:
        before = await find_user(self._directory, user)
        if state is UserState.BLOCKED and before.state is UserState.DELETED:
            raise Conflict(
                f"{before.email or before.id} is deleted, which keeps them out already; to block "
                "them instead, unblock them first",
                reason="deleted",
            )
        try:
            with reaching_the_directory():
                after = await self._directory.set_user_state(before.id, state, CAUSE)
        except Erasing:
            raise Conflict(
                f"{before.email or before.id} was deleted so long ago that their machine and "
                "snapshots are being erased, or are gone: they cannot be let in again",
                reason="erased",
            ) from None
        send_json(exchange, {**_user_json(after), "was": before.state.value})

    async def _sessions(self, exchange: Exchange, user: str) -> None:
        limit = limit_in(query_of(exchange.request), SESSIONS_LIMIT)
        found = await find_user(self._directory, user)
        with reaching_the_directory():
            sessions = await self._directory.sessions.of_user(found.id, limit)
        send_json(exchange, {**_user_json(found), "sessions": [*map(self._session_json, sessions)]})

    async def _revoke_all(self, exchange: Exchange, user: str) -> None:
        found = await find_user(self._directory, user)
        with reaching_the_directory():
            revoked = await self._directory.sessions.revoke_user(found.id, CAUSE)
        send_json(exchange, {**_user_json(found), "revoked": [*revoked]})

    async def _revoke(self, exchange: Exchange, session: str) -> None:
        try:
            session_id = canonical(session)
        except ValueError:
            raise BadRequest(
                f"{session!r} is no session id: it is the session_id of the user's tokens (a UUID)",
                reason="session",
            ) from None
        with reaching_the_directory():
            revoked = await self._directory.sessions.revoke(session_id, CAUSE)
        send_json(exchange, self._session_json(revoked))

    def _session_json(self, session: Session) -> dict[str, object]:
        good = session.expires_at > self._now()
        state = "revoked" if session.revoked_at else "live" if good else "expired"
        return {
            "id": session.id,
            "user": session.user_id,
            "seen_at": time_json(session.seen_at),
            "token_expires_at": time_json(datetime.fromtimestamp(session.expires_at, UTC)),
            "state": state,
            "revoked_at": time_json(session.revoked_at),
            "revoke_cause": session.revoke_cause,
        }


def _user_json(user: User) -> dict[str, object]:
    return {"user": user.id, "email": user.email, "state": user.state.value}
