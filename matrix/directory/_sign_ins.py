"""Browsers' sign-ins in PostgreSQL: sealed tokens, and whose turn it is to refresh them."""

from __future__ import annotations

from datetime import timedelta

from psycopg2.sql import SQL
from zope.interface import implementer

from matrix.directory._pool import Pool
from matrix.directory._rows import SIGN_IN_COLUMNS, to_sign_in
from matrix.directory._statements import names
from matrix.directory.interfaces import ISignIns
from matrix.model import SignIn

_COLUMNS = names(SIGN_IN_COLUMNS)

ADD = """
    INSERT INTO sign_ins (id, session_id, user_id, sealed, ends_at, generation)
    VALUES (%s, %s, %s, %s, to_timestamp(%s), %s) RETURNING 1
    """

FIND = SQL("SELECT {} FROM sign_ins WHERE id = %s AND ends_at > now()").format(_COLUMNS)

CLAIM = """
    UPDATE sign_ins SET lease_owner = %(owner)s, lease_expires_at = now() + %(lease)s
    WHERE id = %(id)s AND generation = %(generation)s AND (
        lease_owner IS NULL OR lease_owner = %(owner)s OR lease_expires_at <= now()
    )
    RETURNING 1
    """

REPLACE = SQL(
    """
    UPDATE sign_ins SET sealed = %(sealed)s, generation = generation + 1,
        lease_owner = NULL, lease_expires_at = NULL
    WHERE id = %(id)s AND generation = %(generation)s
    RETURNING {}
    """
).format(_COLUMNS)

RELEASE = """
    UPDATE sign_ins SET lease_owner = NULL, lease_expires_at = NULL
    WHERE id = %s AND lease_owner = %s RETURNING 1
    """

REMOVE = "DELETE FROM sign_ins WHERE id = %s RETURNING 1"

PURGE = """
    WITH gone AS (DELETE FROM sign_ins WHERE ends_at <= now() RETURNING 1)
    SELECT count(*) FROM gone
    """


@implementer(ISignIns)
class PostgresSignIns:
    """The table C{sign_ins}. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, sign_in: SignIn) -> None:
        """See L{ISignIns.add}."""
        owner = (sign_in.id, sign_in.session_id, sign_in.user_id)
        values = (*owner, sign_in.sealed, sign_in.ends_at, sign_in.generation)
        await self._pool.query(ADD, values)

    async def find(self, sign_in_id: str) -> SignIn | None:
        """See L{ISignIns.find}."""
        rows = await self._pool.query(FIND, (sign_in_id,))
        return to_sign_in(rows[0]) if rows else None

    async def claim(self, sign_in: SignIn, owner: str, seconds: float) -> bool:
        """See L{ISignIns.claim}."""
        values = {
            "id": sign_in.id,
            "generation": sign_in.generation,
            "owner": owner,
            "lease": timedelta(seconds=seconds),
        }
        return bool(await self._pool.query(CLAIM, values))

    async def replace(self, sign_in: SignIn, sealed: bytes) -> SignIn | None:
        """See L{ISignIns.replace}."""
        values = {"id": sign_in.id, "generation": sign_in.generation, "sealed": sealed}
        rows = await self._pool.query(REPLACE, values)
        return to_sign_in(rows[0]) if rows else None

    async def release(self, sign_in: SignIn, owner: str) -> None:
        """See L{ISignIns.release}."""
        await self._pool.query(RELEASE, (sign_in.id, owner))

    async def remove(self, sign_in_id: str) -> bool:
        """See L{ISignIns.remove}."""
        return bool(await self._pool.query(REMOVE, (sign_in_id,)))

    async def purge(self) -> int:
        """See L{ISignIns.purge}."""
        [[count]] = await self._pool.query(PURGE)
        return int(count)
