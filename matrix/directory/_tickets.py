"""Tickets in PostgreSQL: given by one router, taken by another."""

from __future__ import annotations

from datetime import timedelta

from zope.interface import implementer

from matrix.directory._pool import Pool
from matrix.directory.interfaces import ITickets
from matrix.model import Principal

SWEEP = 100
"""Old tickets that each new one clears away: more than come, so that they never pile up."""

# Those that another router is clearing away are left to it, so that none waits for another.
_KEEP = """
    WITH over AS (
        SELECT digest FROM tickets WHERE expires_at <= now()
        ORDER BY expires_at LIMIT %(sweep)s FOR UPDATE SKIP LOCKED
    ), swept AS (
        DELETE FROM tickets USING over WHERE tickets.digest = over.digest
    )
    INSERT INTO tickets (digest, user_id, session_id, email, token_expires_at, expires_at)
    VALUES (
        %(digest)s, %(user_id)s, %(session_id)s, %(email)s, %(token_expires_at)s,
        now() + %(life)s
    )
    RETURNING 1
    """

# Gone whether it is good or not; of two that want the same row, the second finds none.
_TAKE = """
    WITH taken AS (
        DELETE FROM tickets WHERE digest = %s RETURNING *
    )
    SELECT user_id, session_id, token_expires_at, email FROM taken
    WHERE expires_at > now()
      AND NOT EXISTS (
          SELECT FROM users WHERE users.id = taken.user_id AND users.state <> 'active'
      )
      AND NOT EXISTS (
          SELECT FROM sessions
          WHERE sessions.session_id = taken.session_id AND sessions.revoked_at IS NOT NULL
      )
    """


@implementer(ITickets)
class PostgresTickets:
    """The table C{tickets}. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def keep(self, digest: bytes, principal: Principal, life: float) -> None:
        """See L{ITickets.keep}."""
        values = {
            "digest": digest,
            "user_id": principal.user_id,
            "session_id": principal.session_id,
            "email": principal.email,
            "token_expires_at": principal.expires_at,
            "life": timedelta(seconds=life),
            "sweep": SWEEP,
        }
        await self._pool.query(_KEEP, values)

    async def take(self, digest: bytes) -> Principal | None:
        """See L{ITickets.take}."""
        rows = await self._pool.query(_TAKE, (digest,))
        return Principal(*rows[0]) if rows else None
