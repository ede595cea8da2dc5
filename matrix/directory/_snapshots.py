"""Snapshots in PostgreSQL: which there are, who takes them, when the next are due."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from psycopg2.errors import ForeignKeyViolation
from zope.interface import implementer

from matrix.directory import _snapshot_statements as sql
from matrix.directory._isnapshots import ISnapshots
from matrix.directory._pool import Pool
from matrix.directory._rows import to_snapshot, to_standing
from matrix.directory._statements import Statement
from matrix.directory.interfaces import UnknownUser
from matrix.model import Snapshot, Standing, UserId


@implementer(ISnapshots)
class PostgresSnapshots:
    """The tables C{snapshots} and C{snapshot_times}. Made by
    L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def enroll(self, due_in: Mapping[UserId, float]) -> None:
        """See L{ISnapshots.enroll}."""
        if due_in:
            await self._pool.query(sql.ENROLL, ([*due_in], [*due_in.values()]))

    async def claim(
        self, user_ids: Collection[UserId], cause: str, owner: str, lease: float, limit: int
    ) -> Sequence[Snapshot]:
        """See L{ISnapshots.claim}."""
        if not user_ids or limit < 1:
            return []
        values = {"users": [*user_ids], "cause": cause, "limit": limit, **_lease(owner, lease)}
        return [to_snapshot(row) for row in await self._pool.query(sql.CLAIM, values)]

    async def begin(self, user_id: UserId, cause: str, owner: str, lease: float) -> Snapshot | None:
        """See L{ISnapshots.begin}."""
        values = {"user_id": user_id, "cause": cause, **_lease(owner, lease)}
        try:
            rows = await self._pool.query(sql.BEGIN, values)
        except ForeignKeyViolation:
            raise UnknownUser(f"there is no user {user_id}: admit them first") from None
        return to_snapshot(rows[0]) if rows else None

    async def under_way(self, user_id: UserId) -> Snapshot | None:
        """See L{ISnapshots.under_way}."""
        return await self._one(sql.UNDER_WAY, user_id)

    async def prolong(self, snapshot: Snapshot, lease: float) -> bool:
        """See L{ISnapshots.prolong}."""
        values = {"id": snapshot.id, **_lease(snapshot.lease_owner, lease)}
        return bool(await self._pool.query(sql.PROLONG, values))

    async def finish(
        self,
        snapshot: Snapshot,
        restic_id: str,
        bytes_added: int,
        bytes_total: int,
        due_in: float | None,
        *,
        partial: bool = False,
    ) -> bool:
        """See L{ISnapshots.finish}."""
        found: dict[str, object] = {"restic_id": restic_id, "partial": partial}
        found |= {"bytes_added": bytes_added, "bytes_total": bytes_total}
        return await self._end(sql.FINISH, snapshot, due_in, found)

    async def drop(self, snapshot: Snapshot, due_in: float | None) -> bool:
        """See L{ISnapshots.drop}."""
        return await self._end(sql.DROP, snapshot, due_in)

    async def fail(self, snapshot: Snapshot, reason: str, due_in: float) -> bool:
        """See L{ISnapshots.fail}."""
        return await self._end(sql.FAIL, snapshot, due_in, {"reason": reason})

    async def take_over(self, owner: str, lease: float, limit: int) -> Sequence[Snapshot]:
        """See L{ISnapshots.take_over}."""
        values = {"limit": limit, **_lease(owner, lease)}
        return [to_snapshot(row) for row in await self._pool.query(sql.TAKE_OVER, values)]

    async def of_user(self, user_id: UserId, limit: int = 50) -> Sequence[Snapshot]:
        """See L{ISnapshots.of_user}."""
        return [to_snapshot(row) for row in await self._pool.query(sql.OF_USER, (user_id, limit))]

    async def newest(self, user_id: UserId) -> Snapshot | None:
        """See L{ISnapshots.newest}."""
        return await self._one(sql.NEWEST, user_id)

    async def standings(self, limit: int = 1000) -> Sequence[Standing]:
        """See L{ISnapshots.standings}."""
        return [to_standing(row) for row in await self._pool.query(sql.STANDINGS, (limit,))]

    async def failing(self) -> int:
        """See L{ISnapshots.failing}."""
        return await self._count(sql.FAILING)

    async def verified(self, user_id: UserId, restic_ids: Collection[str]) -> None:
        """See L{ISnapshots.verified}."""
        await self._pool.query(sql.VERIFIED, (user_id, [*restic_ids]))

    async def keep_only(self, user_id: UserId, restic_ids: Collection[str]) -> int:
        """See L{ISnapshots.keep_only}."""
        return await self._count(sql.KEEP_ONLY, user_id, [*restic_ids])

    async def purge(self, older: float) -> int:
        """See L{ISnapshots.purge}."""
        return await self._count(sql.PURGE, timedelta(seconds=older))

    async def _one(self, statement: Statement, user_id: UserId) -> Snapshot | None:
        rows = await self._pool.query(statement, (user_id,))
        return to_snapshot(rows[0]) if rows else None

    async def _count(self, statement: Statement, *values: object) -> int:
        [[count]] = await self._pool.query(statement, values)
        return int(count)

    async def _end(
        self,
        statement: Statement,
        snapshot: Snapshot,
        due_in: float | None,
        found: Mapping[str, object] | None = None,
    ) -> bool:
        values = {
            "id": snapshot.id,
            "owner": snapshot.lease_owner,
            "due_in": None if due_in is None else timedelta(seconds=due_in),
            **(found or {}),
        }
        return bool(await self._pool.query(statement, values))


def _lease(owner: str | None, seconds: float) -> dict[str, object]:
    return {"owner": owner, "lease": timedelta(seconds=seconds)}
