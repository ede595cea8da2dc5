"""The directory in PostgreSQL: what all routers share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from psycopg2.errors import ForeignKeyViolation, RestrictViolation
from psycopg2.extras import Json
from zope.interface import implementer

from matrix.directory import _session_statements as access
from matrix.directory import _statements as sql
from matrix.directory._awake import PostgresAwake
from matrix.directory._busy import PostgresBusy
from matrix.directory._dsn import first_line
from matrix.directory._housekeeping import (
    PostgresDuties,
    PostgresPaces,
    PostgresRoll,
    PostgresStrays,
)
from matrix.directory._listener import Listener
from matrix.directory._lives import STATE_EVENTS
from matrix.directory._pool import Pool
from matrix.directory._rows import Row, check_changes, to_column, to_event, to_machine, to_user
from matrix.directory._sessions import PostgresSessions
from matrix.directory._sign_ins import PostgresSignIns
from matrix.directory._snapshots import PostgresSnapshots
from matrix.directory._stock import PostgresStock
from matrix.directory._tickets import PostgresTickets
from matrix.directory._upkeep import PostgresUpkeep
from matrix.directory._wakes import PostgresWakes
from matrix.directory._watchers import Watchers
from matrix.directory.interfaces import Erasing, IDirectory, StaleRow, UnknownUser, Watcher
from matrix.model import Event, Machine, User, UserId, UserState
from matrix.model import user_id as parse_user_id


@implementer(IDirectory)
class PostgresDirectory:
    """What PostgreSQL keeps for all routers. Made by L{open_directory}."""

    def __init__(
        self,
        pool: Pool,
        listener: Listener,
        watchers: Watchers[UserId],
        sessions: PostgresSessions,
    ) -> None:
        self._pool = pool
        self._listener = listener
        self._watchers = watchers
        self.sessions = sessions
        self.awake = PostgresAwake(pool)
        self.sign_ins = PostgresSignIns(pool)
        self.snapshots = PostgresSnapshots(pool)
        self.tickets = PostgresTickets(pool)
        self.busy = PostgresBusy(pool)
        self.roll = PostgresRoll(pool)
        self.strays = PostgresStrays(pool)
        self.duties = PostgresDuties(pool)
        self.paces = PostgresPaces(pool)
        self.upkeep = PostgresUpkeep(pool)
        self.wakes = PostgresWakes(pool)
        self.stock = PostgresStock(pool)

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        self._listener.stop()
        self._pool.close()

    async def user(self, user_id: UserId) -> User | None:
        """See L{IDirectory.user}."""
        rows = await self._pool.query(sql.USER, (user_id,))
        return to_user(rows[0]) if rows else None

    async def admit(self, user_id: UserId, email: str) -> User:
        """See L{IDirectory.admit}."""
        user = await self.user(user_id)
        if user is not None and email in ("", user.email):
            return user
        [row] = await self._pool.query(sql.ADMIT, (user_id, email))
        return to_user(row)

    async def find_user(self, text: str) -> User | None:
        """See L{IDirectory.find_user}."""
        if not text:
            return None
        try:
            return await self.user(parse_user_id(text))
        except ValueError:
            rows = await self._pool.query(sql.FIND_USER, {"text": text})
        return to_user(rows[0]) if len(rows) == 1 else None

    async def set_user_state(
        self, user_id: UserId, state: UserState, cause: str = "operator"
    ) -> User:
        """See L{IDirectory.set_user_state}."""
        values = {
            "user_id": user_id,
            "state": state.value,
            "kind": STATE_EVENTS[state],
            "cause": cause,
        }
        try:
            rows = await self._pool.query(access.SET_USER_STATE, values)
        except RestrictViolation as error:
            raise Erasing(first_line(error)) from None
        if not rows:
            raise UnknownUser(f"there is no user {user_id}: admit them first")
        return to_user(rows[0])

    async def not_active(self, user_ids: Collection[UserId]) -> Mapping[UserId, UserState]:
        """See L{IDirectory.not_active}."""
        if not user_ids:
            return {}
        rows = await self._pool.query(access.NOT_ACTIVE, ([*user_ids],))
        return {UserId(user_id): UserState(state) for user_id, state in rows}

    async def machine(self, user_id: UserId) -> Machine | None:
        """See L{IDirectory.machine}."""
        rows = await self._pool.query(sql.MACHINE, (user_id,))
        return to_machine(rows[0]) if rows else None

    async def machines(self, after: UserId | None = None, limit: int = 1000) -> Sequence[Machine]:
        """See L{IDirectory.machines}."""
        rows = await self._pool.query(sql.MACHINES, {"after": after, "limit": limit})
        return [to_machine(row) for row in rows]

    async def create_machine(self, user_id: UserId, provider: str) -> Machine:
        """See L{IDirectory.create_machine}."""
        machine = await self.machine(user_id)
        if machine is not None:
            return machine
        [row] = await self._insert(user_id, sql.CREATE_MACHINE, provider)
        return to_machine(row)

    async def change(self, machine: Machine, **fields: object) -> Machine:
        """See L{IDirectory.change}."""
        check_changes(fields)
        values = [to_column(value) for value in fields.values()]
        guard = (machine.user_id, machine.generation)
        rows = await self._pool.query(sql.change_machine(fields), (*values, *guard))
        if not rows:
            raise StaleRow(f"the machine of {machine.user_id} changed since it was read")
        return to_machine(rows[0])

    async def touch(self, last_active: Mapping[UserId, float]) -> None:
        """See L{IDirectory.touch}."""
        if last_active:
            values = (list(last_active), list(last_active.values()))
            await self._pool.query(sql.TOUCH, values)

    async def record(
        self, user_id: UserId, kind: str, cause: str, detail: Mapping[str, object] | None = None
    ) -> None:
        """See L{IDirectory.record}."""
        await self._insert(user_id, sql.RECORD, kind, cause, Json(dict(detail or {})))

    async def events(self, user_id: UserId, limit: int = 50) -> Sequence[Event]:
        """See L{IDirectory.events}."""
        return [to_event(row) for row in await self._pool.query(sql.EVENTS, (user_id, limit))]

    def watch(self, changed: Watcher) -> None:
        """See L{IDirectory.watch}."""
        self._watchers.add(changed)

    def stale_since(self) -> float | None:
        """See L{IDirectory.stale_since}."""
        return self._listener.stale_since

    async def _insert(
        self, user_id: UserId, statement: sql.Statement, *values: object
    ) -> Sequence[Row]:
        try:
            return await self._pool.query(statement, (user_id, *values))
        except ForeignKeyViolation:
            raise UnknownUser(f"there is no user {user_id}: admit them first") from None
