"""The SQL statements about users, machines and events, each one transaction."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg2.sql import SQL, Composable, Composed, Identifier

from matrix.directory._rows import EVENT_COLUMNS, MACHINE_COLUMNS, USER_COLUMNS

Statement = str | Composable


def names(columns: Iterable[str], *table: str) -> Composed:
    """Columns in a list, if need be with the name of their table."""
    return SQL(", ").join(Identifier(*table, column) for column in columns)


_USER = names(USER_COLUMNS)
_MACHINE = names(MACHINE_COLUMNS)
_EVENT = names(EVENT_COLUMNS)

USER = SQL("SELECT {} FROM users WHERE id = %s").format(_USER)

# The first condition is what the index knows; the second is for a whole address.
FIND_USER = SQL(
    """
    SELECT {} FROM users
    WHERE split_part(lower(email), '@', 1) = split_part(lower(%(text)s), '@', 1)
      AND (strpos(%(text)s, '@') = 0 OR lower(email) = lower(%(text)s))
    LIMIT 2
    """
).format(_USER)

ADMIT = SQL(
    """
    INSERT INTO users (id, email) VALUES (%s, %s)
    ON CONFLICT (id) DO UPDATE SET email = coalesce(nullif(excluded.email, ''), users.email)
    RETURNING {}
    """
).format(_USER)

MACHINE = SQL("SELECT {} FROM machines WHERE user_id = %s").format(_MACHINE)

MACHINES = SQL(
    "SELECT {} FROM machines WHERE %(after)s IS NULL OR user_id > %(after)s"
    " ORDER BY user_id LIMIT %(limit)s"
).format(_MACHINE)

# The update changes nothing (and so tells nobody); it is there to return the row.
CREATE_MACHINE = SQL(
    """
    INSERT INTO machines (user_id, provider) VALUES (%s, %s)
    ON CONFLICT (user_id) DO UPDATE SET user_id = machines.user_id
    RETURNING {}
    """
).format(_MACHINE)

# Rows are locked in one order: two routers that touch the same users never wait in a circle.
TOUCH = """
    WITH used AS (
        SELECT user_id, to_timestamp(seconds) AS at
        FROM unnest(%s::uuid[], %s::double precision[]) AS given (user_id, seconds)
    ), locked AS (
        SELECT machines.user_id, used.at FROM machines JOIN used USING (user_id)
        WHERE (last_active_at IS NULL OR last_active_at < used.at)
            AND state <> 'draining'
        ORDER BY machines.user_id FOR NO KEY UPDATE OF machines
    )
    UPDATE machines SET last_active_at = greatest(last_active_at, locked.at)
    FROM locked WHERE machines.user_id = locked.user_id
    RETURNING 1
    """

RECORD = "INSERT INTO events (user_id, kind, cause, detail) VALUES (%s, %s, %s, %s) RETURNING id"

EVENTS = SQL("SELECT {} FROM events WHERE user_id = %s ORDER BY at DESC, id DESC LIMIT %s").format(
    _EVENT
)


def change_machine(columns: Iterable[str]) -> Composed:
    """The guarded update of these columns: their values, then user id and generation."""
    return SQL("UPDATE machines SET {} WHERE user_id = %s AND generation = %s RETURNING {}").format(
        settings(columns), _MACHINE
    )


def settings(columns: Iterable[str]) -> Composed:
    """What an update of a machine sets: these columns to values, and the next generation."""
    parts = [SQL("generation = machines.generation + 1")]
    parts += [SQL("{} = %s").format(Identifier(name)) for name in columns]
    return SQL(", ").join(parts)
