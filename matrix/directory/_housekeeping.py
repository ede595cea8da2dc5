"""The routers' housekeeping in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, timedelta

from psycopg2.sql import SQL, Composable
from zope.interface import implementer

from matrix.directory._pool import Pool
from matrix.directory._rows import MACHINE_COLUMNS, Row, to_machine
from matrix.directory._statements import names
from matrix.directory.housekeeping import IDuties, IPaces, IRoll, IStrays, Named
from matrix.model import Machine, MachineState, Stray, UserId

_MACHINE = names(MACHINE_COLUMNS)
_MACHINE_OF = names(MACHINE_COLUMNS, "machines")

# Before the first: the nil UUID, which is nobody's, so that the condition stays one that the
# key's index knows.
_FIRST = UserId("00000000-0000-0000-0000-000000000000")

_OF = SQL("SELECT {} FROM machines WHERE user_id = ANY(%s::uuid[])").format(_MACHINE)

_IN_STATES = SQL(
    "SELECT {} FROM machines WHERE state = ANY(%(states)s) AND provider = %(provider)s"
    " AND user_id > %(after)s ORDER BY user_id LIMIT %(limit)s"
).format(_MACHINE)

# Each of the two inner parts is what the index knows, so that of those that run only the overdue
# are read; the last condition is what is meant.
_OVERDUE = SQL(
    """
    SELECT {} FROM machines JOIN users ON users.id = machines.user_id
    WHERE user_id IN (
          SELECT user_id FROM machines WHERE state = 'running' AND last_active_at < now() - %(idle)s
          UNION ALL
          SELECT user_id FROM machines WHERE state = 'running' AND last_active_at IS NULL
      )
      AND machines.state = 'running' AND provider = %(provider)s AND user_id > %(after)s
      AND coalesce(last_active_at, last_wake_at, machines.created_at) < now() - %(idle)s
          - make_interval(secs => greatest(coalesce(idle_timeout_s, 0) - %(seconds)s, 0))
    ORDER BY user_id LIMIT %(limit)s
    """
).format(_MACHINE_OF)

_MADE = SQL(
    "SELECT {} FROM machines WHERE user_id > %(after)s AND provider = %(provider)s"
    " AND coalesce(machine_id, volume_id, former_machine_id, former_volume_id) IS NOT NULL"
    " ORDER BY user_id LIMIT %(limit)s"
).format(names(Named._fields))

# Asked before something is deleted for good, and then seldom: no index is kept for it.
_NAMING = SQL(
    "SELECT {} FROM machines"
    " WHERE %s IN (machine_id, volume_id, former_machine_id, former_volume_id)"
).format(_MACHINE)

_COUNTS = "SELECT state, count(*) FROM machines GROUP BY state"

_STRAY_COLUMNS = (
    "id", "kind", "provider", "app", "name", "region", "user_id", "reason", "ours",
    "first_seen", "last_seen",
)  # fmt: skip
_STRAY = names(_STRAY_COLUMNS)
_STRAY_OF = names(_STRAY_COLUMNS, "strays")

_NOTE = SQL(
    """
    INSERT INTO strays (id, kind, provider, app, name, region, user_id, reason, ours)
    SELECT * FROM unnest(
        %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::uuid[],
        %s::text[], %s::boolean[]
    )
    ON CONFLICT (id) DO UPDATE SET
        name = excluded.name, region = excluded.region, user_id = excluded.user_id,
        reason = excluded.reason, ours = excluded.ours, last_seen = now()
    RETURNING {}
    """
).format(_STRAY_OF)

_SETTLE = SQL(
    "DELETE FROM strays WHERE provider = %s AND id <> ALL(%s::text[]) AND region <> ALL(%s::text[])"
    " RETURNING {}"
).format(_STRAY)

_REMOVE = "DELETE FROM strays WHERE id = %s RETURNING 1"

_ALL = SQL("SELECT {} FROM strays WHERE id > %s ORDER BY id LIMIT %s").format(_STRAY)

_CLAIM = """
    INSERT INTO duties (name, lease_owner, lease_expires_at)
    VALUES (%(name)s, %(owner)s, now() + %(life)s)
    ON CONFLICT (name) DO UPDATE
    SET lease_owner = excluded.lease_owner, lease_expires_at = excluded.lease_expires_at
    WHERE duties.lease_owner = excluded.lease_owner
       OR (duties.lease_owner IS NULL OR duties.lease_expires_at <= now())
          AND (duties.done_at IS NULL OR duties.done_at <= now() - %(every)s)
    RETURNING 1
    """

_RELEASE = """
    UPDATE duties SET lease_owner = NULL, lease_expires_at = NULL,
        done_at = CASE WHEN %(done)s THEN now() ELSE done_at END
    WHERE name = %(name)s AND lease_owner = %(owner)s
    RETURNING 1
    """

# A turn is an interval long; as many as are in a burst may have been saved up.
_TURN = """
    INSERT INTO paces (name, next_at)
    VALUES (%(name)s, clock_timestamp() - %(saved)s + %(interval)s)
    ON CONFLICT (name) DO UPDATE
    SET next_at = greatest(paces.next_at, clock_timestamp() - %(saved)s) + %(interval)s
    RETURNING extract(epoch FROM next_at - %(interval)s - clock_timestamp())
    """

_HOLD = """
    INSERT INTO paces (name, next_at) VALUES (%(name)s, clock_timestamp() + %(seconds)s)
    ON CONFLICT (name) DO UPDATE SET next_at = greatest(paces.next_at, excluded.next_at)
    RETURNING 1
    """


@implementer(IRoll)
class PostgresRoll:
    """The table C{machines} in bulk. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def of(self, user_ids: Collection[UserId]) -> Mapping[UserId, Machine]:
        """See L{IRoll.of}."""
        rows = await self._pool.query(_OF, ([*user_ids],)) if user_ids else []
        return {machine.user_id: machine for machine in map(to_machine, rows)}

    async def in_states(
        self,
        provider: str,
        states: Collection[MachineState],
        after: UserId | None = None,
        limit: int = 500,
    ) -> Sequence[Machine]:
        """See L{IRoll.in_states}."""
        values = {"states": [state.value for state in states]}
        return await self._page(_IN_STATES, provider, after, limit, values)

    async def overdue(
        self, provider: str, idle: float, after: UserId | None = None, limit: int = 500
    ) -> Sequence[Machine]:
        """See L{IRoll.overdue}."""
        values = {"idle": timedelta(seconds=idle), "seconds": idle}
        return await self._page(_OVERDUE, provider, after, limit, values)

    async def made(
        self, provider: str, after: UserId | None = None, limit: int = 1000
    ) -> Sequence[Named]:
        """See L{IRoll.made}."""
        values = {"provider": provider, "after": after or _FIRST, "limit": limit}
        rows = await self._pool.query(_MADE, values)
        return [Named(row[0], MachineState(row[1]), *row[2:]) for row in rows]

    async def naming(self, id: str) -> Sequence[Machine]:
        """See L{IRoll.naming}."""
        return [to_machine(row) for row in await self._pool.query(_NAMING, (id,))]

    async def counts(self) -> Mapping[MachineState, int]:
        """See L{IRoll.counts}."""
        rows = await self._pool.query(_COUNTS)
        return {MachineState(state): count for state, count in rows}

    async def _page(
        self,
        statement: Composable,
        provider: str,
        after: UserId | None,
        limit: int,
        values: Mapping[str, object],
    ) -> Sequence[Machine]:
        where = {"provider": provider, "after": after or _FIRST, "limit": limit}
        rows = await self._pool.query(statement, {**values, **where})
        return [to_machine(row) for row in rows]


@implementer(IStrays)
class PostgresStrays:
    """The table C{strays}. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def note(self, strays: Collection[Stray]) -> Sequence[Stray]:
        """See L{IStrays.note}."""
        if not strays:
            return []
        columns = [[getattr(stray, name) for stray in strays] for name in _STRAY_COLUMNS[:9]]
        return [_to_stray(row) for row in await self._pool.query(_NOTE, columns)]

    async def settle(
        self, provider: str, seen: Collection[str], blind: Collection[str]
    ) -> Sequence[Stray]:
        """See L{IStrays.settle}."""
        rows = await self._pool.query(_SETTLE, (provider, [*seen], [*blind]))
        return [_to_stray(row) for row in rows]

    async def remove(self, id: str) -> None:
        """See L{IStrays.remove}."""
        await self._pool.query(_REMOVE, (id,))

    async def all(self, after: str | None = None, limit: int = 1000) -> Sequence[Stray]:
        """See L{IStrays.all}."""
        return [_to_stray(row) for row in await self._pool.query(_ALL, (after or "", limit))]


@implementer(IDuties)
class PostgresDuties:
    """The table C{duties}. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, name: str, owner: str, seconds: float, every: float = 0.0) -> bool:
        """See L{IDuties.claim}."""
        values = {
            "name": name,
            "owner": owner,
            "life": timedelta(seconds=seconds),
            "every": timedelta(seconds=every),
        }
        return bool(await self._pool.query(_CLAIM, values))

    async def release(self, name: str, owner: str, *, done: bool) -> None:
        """See L{IDuties.release}."""
        await self._pool.query(_RELEASE, {"name": name, "owner": owner, "done": done})


@implementer(IPaces)
class PostgresPaces:
    """The table C{paces}. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def turn(self, name: str, per_second: float, burst: int) -> float:
        """See L{IPaces.turn}."""
        interval = timedelta(seconds=1 / per_second)
        values = {"name": name, "interval": interval, "saved": (burst - 1) * interval}
        [[seconds]] = await self._pool.query(_TURN, values)
        return max(0.0, float(seconds))

    async def hold(self, name: str, seconds: float) -> None:
        """See L{IPaces.hold}."""
        values = {"name": name, "seconds": timedelta(seconds=seconds)}
        await self._pool.query(_HOLD, values)


def _to_stray(row: Row) -> Stray:
    values = dict(zip(_STRAY_COLUMNS, row, strict=True))
    for name in ("first_seen", "last_seen"):
        values[name] = values[name].astimezone(UTC)
    return Stray(**values)
