"""What a wake asks of PostgreSQL: one statement to begin with, and one at its end."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg2.extras import Json
from psycopg2.sql import SQL, Literal
from zope.interface import implementer

from matrix.directory._pool import Pool
from matrix.directory._rows import (
    MACHINE_COLUMNS,
    USER_COLUMNS,
    check_changes,
    to_column,
    to_machine,
    to_user,
)
from matrix.directory._statements import change_machine, names
from matrix.directory.interfaces import StaleRow
from matrix.directory.wakes import FAILED, LATEST, WAKE, Found, IWakes, read_past
from matrix.model import Machine, UserId

_FIND = SQL(
    """
    SELECT {}, {}, past.events
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
            WHERE user_id = wanted.id ORDER BY at DESC, id DESC LIMIT {}
        ) AS latest
        WHERE kind IN ({}, {})
    ) AS past ON true
    """
).format(
    names(USER_COLUMNS, "users"),
    names(MACHINE_COLUMNS, "machines"),
    Literal(LATEST),
    Literal(WAKE),
    Literal(FAILED),
)


@implementer(IWakes)
class PostgresWakes:
    """Over users, machines and events. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, user_id: UserId) -> Found:
        """See L{IWakes.find}."""
        [[*columns, events]] = await self._pool.query(_FIND, (user_id,))
        user, machine = columns[: len(USER_COLUMNS)], columns[len(USER_COLUMNS) :]
        past = read_past([(kind, cause, detail, age) for kind, cause, detail, age in events or ()])
        return Found(
            to_user(user) if user[0] is not None else None,
            to_machine(machine) if machine[0] is not None else None,
            past,
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
