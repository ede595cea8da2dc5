"""For how long machines are awake, as the triggers of PostgreSQL have counted it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zope.interface import implementer

from matrix.directory._pool import Pool
from matrix.directory._rows import Row
from matrix.directory.awake import KEPT_DAYS, FleetWaking, IAwake, Spell, Waking
from matrix.model import UserId

# What is still going on counts from when it began, or from the first of the days.
_TOP = """
    WITH first AS (
        SELECT (now() AT TIME ZONE 'UTC')::date - %(days)s + 1 AS day
    ), parts AS (
        SELECT user_id, cause, seconds, wakes FROM awake_days, first
        WHERE awake_days.day >= first.day
          AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s::uuid)
        UNION ALL
        SELECT user_id, cause, extract(epoch FROM
            now() - greatest(since, first.day::timestamp AT TIME ZONE 'UTC')
        ), 0 FROM awake, first
        WHERE since < now() AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s::uuid)
    ), causes AS (
        SELECT user_id, cause, sum(seconds)::double precision AS seconds, sum(wakes)::int AS wakes
        FROM parts GROUP BY user_id, cause
    ), top AS (
        SELECT user_id, sum(seconds) AS whole, jsonb_object_agg(cause, seconds) AS seconds,
               jsonb_object_agg(cause, wakes) AS wakes
        FROM causes GROUP BY user_id ORDER BY whole DESC, user_id LIMIT %(limit)s
    )
    SELECT top.user_id, coalesce(users.email, ''), top.seconds, top.wakes,
           awake.since, awake.cause, machines.last_active_at
    FROM top LEFT JOIN users ON users.id = top.user_id LEFT JOIN awake USING (user_id)
    LEFT JOIN machines USING (user_id)
    ORDER BY top.whole DESC, top.user_id
    """

_FLEET = """
    SELECT cause, sum(machines)::int, sum(seconds)::double precision FROM (
        SELECT cause, 0 AS machines, seconds FROM awake_totals
        UNION ALL
        SELECT cause, 1, greatest(extract(epoch FROM now() - since), 0) FROM awake
    ) AS parts GROUP BY cause
    """

_PURGE = """
    DELETE FROM awake_days WHERE day < (now() AT TIME ZONE 'UTC')::date - %s RETURNING 1
    """


@implementer(IAwake)
class PostgresAwake:
    """The tables C{awake…}. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def top(self, days: int, limit: int) -> Sequence[Waking]:
        """See L{IAwake.top}."""
        values = {"days": days, "limit": limit, "user_id": None}
        return [_waking(row) for row in await self._pool.query(_TOP, values)]

    async def of_user(self, user_id: UserId, days: int) -> Waking:
        """See L{IAwake.of_user}."""
        values = {"days": days, "limit": 1, "user_id": user_id}
        rows = await self._pool.query(_TOP, values)
        return _waking(rows[0]) if rows else Waking(user_id, "", {}, {}, None, None)

    async def fleet(self) -> Mapping[str, FleetWaking]:
        """See L{IAwake.fleet}."""
        rows = await self._pool.query(_FLEET, ())
        return {cause: FleetWaking(machines, seconds) for cause, machines, seconds in rows}

    async def purge(self) -> int:
        """See L{IAwake.purge}."""
        return len(await self._pool.query(_PURGE, (KEPT_DAYS,)))


def _waking(row: Row) -> Waking:
    user_id, email, seconds, wakes, since, cause, last_active_at = row
    now = None if since is None else Spell(since, cause)
    return Waking(UserId(user_id), email, seconds, wakes, now, last_active_at)
