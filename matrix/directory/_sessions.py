"""Sign-ins in PostgreSQL: what all routers know of them, and tell each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from zope.interface import implementer

from matrix.directory import _session_statements as sql
from matrix.directory._lives import KEPT, LATEST, LONGEST_TOKEN, REVOKED, SLACK, memory_of
from matrix.directory._pool import Pool
from matrix.directory._rows import to_session
from matrix.directory._watchers import Watchers
from matrix.directory.interfaces import AccessWatcher, ISessions
from matrix.model import AccessChange, Session, UserId

NOTE_BATCH = 2_000
"""Sessions noted in one statement: a tenth of a second. A crowd that comes back all at once is tens
of thousands, which in one would be near the time limit of a query."""

PURGE_BATCH = 10_000
"""Rows forgotten in one statement: some tens of milliseconds."""


@implementer(ISessions)
class PostgresSessions:
    """The table C{sessions}. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool, watchers: Watchers[AccessChange]) -> None:
        self._pool = pool
        self._watchers = watchers

    async def note(self, seen: Mapping[str, tuple[UserId, float]]) -> None:
        """See L{ISessions.note}."""
        rows = [(one, user_id, min(end, LATEST)) for one, (user_id, end) in seen.items()]
        for first in range(0, len(rows), NOTE_BATCH):
            sessions, users, ends = zip(*rows[first : first + NOTE_BATCH], strict=True)
            values = {
                "sessions": [*sessions],
                "users": [*users],
                "expires": [*ends],
                "slack": SLACK,
            }
            await self._pool.query(sql.NOTE, values)

    async def newest(self, session_ids: Collection[str]) -> Mapping[str, float]:
        """See L{ISessions.newest}."""
        if not session_ids:
            return {}
        rows = await self._pool.query(sql.NEWEST, ([*session_ids],))
        return {row[0]: row[1] for row in rows}

    async def of_user(self, user_id: UserId, limit: int = 100) -> Sequence[Session]:
        """See L{ISessions.of_user}."""
        return [to_session(row) for row in await self._pool.query(sql.OF_USER, (user_id, limit))]

    async def revoke(
        self, session_id: str, cause: str, user_id: UserId | None = None, *, ended: bool = False
    ) -> Session:
        """See L{ISessions.revoke}."""
        values = {
            "session_id": session_id,
            "user_id": user_id,
            "kind": REVOKED,
            "cause": cause,
            "longest": LONGEST_TOKEN,
            "memory": memory_of(ended),
            "slack": SLACK,
        }
        [row] = await self._pool.query(sql.REVOKE, values)
        return to_session(row)

    async def revoke_user(self, user_id: UserId, cause: str) -> Sequence[str]:
        """See L{ISessions.revoke_user}."""
        values = {
            "user_id": user_id,
            "kind": REVOKED,
            "cause": cause,
            "memory": memory_of(ended=False),
            "slack": SLACK,
        }
        rows = await self._pool.query(sql.REVOKE_USER, values)
        return [session_id for [session_id] in rows if session_id is not None]

    async def revoked(self) -> Collection[str]:
        """See L{ISessions.revoked}."""
        return {session_id for [session_id] in await self._pool.query(sql.REVOKED)}

    async def purge(self) -> int:
        """See L{ISessions.purge}."""
        total = 0
        while True:
            [[count]] = await self._pool.query(sql.PURGE, {"kept": KEPT, "batch": PURGE_BATCH})
            total += int(count)
            if count < PURGE_BATCH:
                return total

    def watch(self, changed: AccessWatcher) -> None:
        """See L{ISessions.watch}."""
        self._watchers.add(changed)
