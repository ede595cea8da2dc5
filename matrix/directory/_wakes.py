"""What a wake asks of PostgreSQL: one statement to begin with, and one at its end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from psycopg2.extras import Json
from psycopg2.sql import SQL, Composed, Literal
from zope.interface import implementer

from matrix.directory._pool import Pool
from matrix.directory._rows import (
    MACHINE_COLUMNS,
    USER_COLUMNS,
    Row,
    check_changes,
    to_column,
    to_machine,
    to_user,
)
from matrix.directory._statements import change_machine, names, settings
from matrix.directory.interfaces import StaleRow
from matrix.directory.wakes import FAILED, LATEST, WAKE, Found, IWakes, read_past
from matrix.model import Machine, UserId

# A statement sees the tables as they were before it: what was claimed it is told by the claim.
_FIND = SQL(
    """
    {claim}
    SELECT {user}, {machine}, past.events, {claimed}
    FROM (SELECT %s::uuid AS id) AS wanted
    LEFT JOIN users ON users.id = wanted.id
    LEFT JOIN machines ON machines.user_id = wanted.id
    LEFT JOIN LATERAL (
        SELECT jsonb_agg(
            jsonb_build_array(kind, cause, detail, extract(epoch FROM clock_timestamp() - at))
            ORDER BY at DESC, id DESC
        ) AS events
        FROM (
            SELECT id, at, kind, cause, detail FROM events
            WHERE user_id = wanted.id ORDER BY at DESC, id DESC LIMIT {latest}
        ) AS latest
        WHERE kind IN ({wake}, {failed})
    ) AS past ON true
    {join}
    """
)
_CLAIM = SQL(
    """
    WITH claimed AS (
        UPDATE machines SET {settings} FROM users
        WHERE machines.user_id = %s AND users.id = machines.user_id AND users.state = 'active'
          AND machines.state = 'suspended' AND machines.machine_id IS NOT NULL
          AND (lease_owner IS NULL OR lease_owner = %s OR lease_expires_at <= now())
        RETURNING {machine}
    )
    """
)


@implementer(IWakes)
class PostgresWakes:
    """Over users, machines and events. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, user_id: UserId, claim: Mapping[str, object] | None = None) -> Found:
        """See L{IWakes.find}."""
        given = claim or {}
        check_changes(given)
        values = [to_column(value) for value in given.values()]
        if given:
            values += [user_id, given["lease_owner"]]
        [row] = await self._pool.query(_find(tuple(given)), (*values, user_id))
        user, machine, [events, *claimed] = _parts(row)
        if claimed and claimed[0] is not None:
            machine = claimed
        past = read_past([(kind, cause, detail, age) for kind, cause, detail, age in events or ()])
        return Found(
            to_user(user) if user[0] is not None else None,
            to_machine(machine) if machine[0] is not None else None,
            past,
            machine is claimed,
        )

    async def change(
        self,
        machine: Machine,
        kind: str,
        cause: str,
        detail: Mapping[str, object],
        **fields: object,
    ) -> Machine:
        """See L{IWakes.change}."""
        check_changes(fields)
        statement = SQL(
            """
            WITH changed AS ({}), noted AS (
                INSERT INTO events (user_id, kind, cause, detail)
                SELECT user_id, %s, %s, %s FROM changed
            )
            SELECT {} FROM changed
            """
        ).format(change_machine(fields), names(MACHINE_COLUMNS))
        values = [to_column(value) for value in fields.values()]
        guard = (machine.user_id, machine.generation)
        event = (kind, cause, Json(dict(detail)))
        rows = await self._pool.query(statement, (*values, *guard, *event))
        if not rows:
            raise StaleRow(f"the machine of {machine.user_id} changed since it was read")
        return to_machine(rows[0])


@cache
def _find(columns: tuple[str, ...]) -> Composed:
    """@param columns: those that are claimed; none if nothing is."""
    claim = _CLAIM.format(settings=settings(columns), machine=names(MACHINE_COLUMNS, "machines"))
    return _FIND.format(
        claim=claim if columns else SQL(""),
        user=names(USER_COLUMNS, "users"),
        machine=names(MACHINE_COLUMNS, "machines"),
        claimed=names(MACHINE_COLUMNS, "claimed") if columns else SQL("NULL"),
        join=SQL("LEFT JOIN claimed ON claimed.user_id = wanted.id" if columns else ""),
        latest=Literal(LATEST),
        wake=Literal(WAKE),
        failed=Literal(FAILED),
    )


def _parts(row: Row) -> tuple[Row, Row, Row]:
    """The user's columns, those of the machine, and the others."""
    users, machines = len(USER_COLUMNS), len(USER_COLUMNS) + len(MACHINE_COLUMNS)
    return row[:users], row[users:machines], row[machines:]
