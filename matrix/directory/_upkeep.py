"""The upkeep of snapshots in PostgreSQL: what is due for whom, claimed by one process at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta

from psycopg2.sql import SQL, Composed, Identifier
from zope.interface import implementer

from matrix.directory._pool import Pool
from matrix.directory._rows import Row
from matrix.directory._statements import names
from matrix.directory._upkeep_contract import Chore, IUpkeep, Upkeep
from matrix.model import UserId

UPKEEP_COLUMNS = tuple(field.name for field in fields(Upkeep))
_COLUMNS = names(UPKEEP_COLUMNS, "upkeep")

FIND = SQL("SELECT {} FROM upkeep WHERE user_id = %s").format(_COLUMNS)

_FREE = "(lease_expires_at IS NULL OR lease_expires_at <= now())"

_DUE = {
    Chore.THIN: "thin_at <= now() AND deleted_at IS NULL ORDER BY thin_at",
    Chore.SCRUB: "scrub_at <= now() AND deleted_at IS NULL ORDER BY scrub_at",
    # Only users whose repository was seen; those whose turn was longest ago, or never came.
    Chore.DRILL: (
        "thinned_at IS NOT NULL AND deleted_at IS NULL AND NOT EXISTS ("
        "SELECT FROM upkeep AS others WHERE thinned_at IS NOT NULL"
        " AND drilled_at > now() - %(spell)s"
        ") ORDER BY drilled_at NULLS FIRST"
    ),
    Chore.ERASE: (
        "deleted_at <= now() - %(spell)s AND erased_at IS NULL"
        " AND (erase_at IS NULL OR erase_at <= now()) ORDER BY deleted_at"
    ),
}

_BEGUN = {Chore.ERASE: ", erasing_at = coalesce(erasing_at, now())"}

HOLD = """
    UPDATE upkeep SET lease_expires_at = now() + %(lease)s
    WHERE user_id = %(user_id)s AND lease_owner = %(owner)s RETURNING 1
    """

_AGAIN = {Chore.THIN: "thin_at", Chore.SCRUB: "scrub_at", Chore.ERASE: "erase_at"}

_DONE = {
    Chore.THIN: "thinned_at = CASE WHEN %(mark)s = '' THEN thinned_at ELSE now() END,"
    " mark = %(mark)s",
    Chore.SCRUB: "scrubbed_at = now()",
    Chore.DRILL: "drilled_at = now(), drill_seconds = %(drill_seconds)s,"
    " drill_bytes = %(drill_bytes)s",
    Chore.ERASE: "erased_at = CASE WHEN %(erased)s THEN now() END",
}

_HELD = {Chore.DRILL: "drilled_at = now(), drill_seconds = NULL, drill_bytes = NULL"}

WANT = """
    INSERT INTO upkeep (user_id, wanted, wanted_at) VALUES (%s, %s, now())
    ON CONFLICT (user_id) DO UPDATE SET
        wanted = excluded.wanted, wanted_at = excluded.wanted_at
    RETURNING 1
    """

TROUBLED = SQL(
    "SELECT {} FROM upkeep WHERE trouble IS NOT NULL ORDER BY failures DESC, user_id LIMIT %s"
).format(_COLUMNS)


def claim_statement(chore: Chore) -> Composed:
    """Claims the one for whom a chore is due longest."""
    return SQL(
        f"""
        WITH due AS (
            SELECT user_id AS it FROM upkeep WHERE {_FREE} AND {_DUE[chore]}
            LIMIT 1 FOR UPDATE SKIP LOCKED
        )
        UPDATE upkeep SET lease_owner = %(owner)s, lease_expires_at = now() + %(lease)s
            {_BEGUN.get(chore, "")}
        FROM due WHERE user_id = it RETURNING {{}}
        """  # noqa: S608 -- of our own words only
    ).format(_COLUMNS)


def ending_statement(chore: Chore, *settings: str) -> Composed:
    """Writes down what came of a chore, and lets go of the user."""
    changes = ["lease_owner = NULL", "lease_expires_at = NULL", *settings]
    told = SQL(", ").join(map(SQL, changes))
    if column := _AGAIN.get(chore):
        told += SQL(", {} = now() + %(again)s").format(Identifier(column))
    statement = "UPDATE upkeep SET {} WHERE user_id = %(user_id)s AND lease_owner = %(owner)s"
    return SQL(statement + " RETURNING 1").format(told)


_CLAIMS = {chore: claim_statement(chore) for chore in Chore}
_WELL = {
    chore: ending_statement(
        chore,
        "trouble = CASE WHEN trouble_of <> %(chore)s THEN trouble END",
        "failures = CASE WHEN trouble_of <> %(chore)s THEN failures ELSE 0 END",
        "trouble_of = nullif(trouble_of, %(chore)s)",
        _DONE[chore],
    )
    for chore in Chore
}
_BADLY = {
    chore: ending_statement(
        chore,
        "trouble = %(why)s",
        "failures = CASE WHEN trouble_of = %(chore)s THEN failures + 1 ELSE 1 END",
        "trouble_of = %(chore)s",
        *([_HELD[chore]] if chore in _HELD else ()),
    )
    for chore in Chore
}
_NOT_NOW = {
    chore: ending_statement(chore, *([_HELD[chore]] if chore in _HELD else ())) for chore in Chore
}


@implementer(IUpkeep)
class PostgresUpkeep:
    """The table C{upkeep}. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, user_id: UserId) -> Upkeep | None:
        """See L{IUpkeep.find}."""
        rows = await self._pool.query(FIND, (user_id,))
        return to_upkeep(rows[0]) if rows else None

    async def claim(
        self, chore: Chore, owner: str, lease: float, spell: float = 0.0
    ) -> Upkeep | None:
        """See L{IUpkeep.claim}."""
        spans = {"lease": timedelta(seconds=lease), "spell": timedelta(seconds=spell)}
        rows = await self._pool.query(_CLAIMS[chore], {"owner": owner, **spans})
        return to_upkeep(rows[0]) if rows else None

    async def hold(self, user_id: UserId, owner: str, lease: float) -> bool:
        """See L{IUpkeep.hold}."""
        values = {"user_id": user_id, "owner": owner, "lease": timedelta(seconds=lease)}
        return bool(await self._pool.query(HOLD, values))

    async def done(
        self,
        user_id: UserId,
        owner: str,
        chore: Chore,
        again: float,
        facts: Mapping[str, object],
    ) -> bool:
        """See L{IUpkeep.done}."""
        told = {"chore": chore.value, **facts}
        return await self._end(_WELL[chore], user_id, owner, again, told)

    async def failed(
        self, user_id: UserId, owner: str, chore: Chore, again: float, why: str
    ) -> bool:
        """See L{IUpkeep.failed}."""
        told = {"chore": chore.value, "why": why}
        return await self._end(_BADLY[chore], user_id, owner, again, told)

    async def put_off(self, user_id: UserId, owner: str, chore: Chore, again: float) -> bool:
        """See L{IUpkeep.put_off}."""
        return await self._end(_NOT_NOW[chore], user_id, owner, again, {})

    async def want(self, user_id: UserId, snapshot: str | None) -> None:
        """See L{IUpkeep.want}."""
        await self._pool.query(WANT, (user_id, snapshot))

    async def troubled(self, limit: int = 100) -> Sequence[Upkeep]:
        """See L{IUpkeep.troubled}."""
        return [to_upkeep(row) for row in await self._pool.query(TROUBLED, (limit,))]

    async def _end(
        self,
        statement: Composed,
        user_id: UserId,
        owner: str,
        again: float,
        facts: Mapping[str, object],
    ) -> bool:
        values = {"user_id": user_id, "owner": owner, "again": timedelta(seconds=again), **facts}
        return bool(await self._pool.query(statement, values))


def to_upkeep(row: Row) -> Upkeep:
    """A row of C{upkeep} from its L{UPKEEP_COLUMNS}."""
    values = dict(zip(UPKEEP_COLUMNS, row, strict=True))
    values["user_id"] = UserId(values["user_id"])
    for name, value in values.items():
        if isinstance(value, datetime):
            values[name] = value.astimezone(UTC)
    return Upkeep(**values)
