"""What machines are busy with, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from psycopg2.sql import SQL
from zope.interface import implementer

from matrix.directory._pool import Pool
from matrix.directory._rows import BUSY_COLUMNS, to_busy
from matrix.directory._statements import names
from matrix.directory.interfaces import IBusy, UnknownUser
from matrix.model import Busy, UserId

_COLUMNS = names(BUSY_COLUMNS)

# A new lease makes the row another one, for a router that has just begun to put the machine to
# sleep decided on what it was: whichever statement comes first, the other finds out.
HOLD = SQL(
    """
    WITH known AS (
        SELECT FROM busy WHERE user_id = %(user_id)s AND until > now()
    ), held AS (
        INSERT INTO busy (user_id, reason, until)
        SELECT id, %(reason)s, now() + %(seconds)s
        FROM users WHERE id = %(user_id)s AND state = 'active'
        ON CONFLICT (user_id) DO UPDATE SET
            reason = excluded.reason,
            until = excluded.until,
            since = CASE WHEN busy.until > now() THEN busy.since ELSE now() END
        RETURNING {}
    ), told AS (
        UPDATE machines SET generation = generation + 1
        WHERE user_id = (SELECT user_id FROM held)
            AND (state = 'running' OR state = 'draining' AND suspend_cause = 'idle')
            AND coalesce(greatest(last_active_at, last_wake_at), now()) + %(longest)s > now()
            AND NOT EXISTS (SELECT FROM known)
        RETURNING 1
    ), noted AS (
        INSERT INTO events (user_id, kind, cause, detail)
        SELECT user_id, 'busy', reason, jsonb_build_object('seconds', %(number)s)
        FROM held WHERE NOT EXISTS (SELECT FROM known)
        RETURNING 1
    )
    SELECT {} FROM held
    """
).format(_COLUMNS, _COLUMNS)

END = "DELETE FROM busy WHERE user_id = %s RETURNING until > now()"

OF = SQL("SELECT {} FROM busy WHERE user_id = ANY(%s::uuid[]) AND until > now()").format(_COLUMNS)


@implementer(IBusy)
class PostgresBusy:
    """The table C{busy}. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def hold(self, user_id: UserId, reason: str, seconds: float, longest: float) -> Busy:
        """See L{IBusy.hold}."""
        values = {
            "user_id": user_id,
            "reason": reason,
            "seconds": timedelta(seconds=seconds),
            "longest": timedelta(seconds=longest),
            "number": seconds,
        }
        rows = await self._pool.query(HOLD, values)
        if not rows:
            raise UnknownUser(f"there is no user {user_id} who may come in")
        return to_busy(rows[0])

    async def end(self, user_id: UserId) -> bool:
        """See L{IBusy.end}."""
        rows = await self._pool.query(END, (user_id,))
        return bool(rows and rows[0][0])

    async def of(self, user_ids: Collection[UserId]) -> Mapping[UserId, Busy]:
        """See L{IBusy.of}."""
        if not user_ids:
            return {}
        found = map(to_busy, await self._pool.query(OF, ([*user_ids],)))
        return {busy.user_id: busy for busy in found}
