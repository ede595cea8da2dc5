"""The stock of machines in PostgreSQL: filled by any router, taken from by any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from psycopg2.sql import SQL, Identifier
from zope.interface import implementer

from matrix.directory._pool import Pool
from matrix.directory._rows import MACHINE_COLUMNS, Row, check_changes, to_machine
from matrix.directory._statements import names
from matrix.directory._stock_interface import IStock
from matrix.directory.interfaces import StaleRow
from matrix.model import Machine, MachineState, UserId

LEASE = timedelta(seconds=180)
"""For how long a router that died keeps others from a place: the making of a machine takes up to
two minutes, and nobody waits for it."""
OLD = timedelta(minutes=10)
"""After which a machine that was made of something else goes: routers that are brought up to date
one after the other do not undo each other's work before."""

KEPT = ("app", "machine_id", "volume_id", "region", "image", "size", "provision_step")
"""What is known of a machine without a user."""

_PLACE = names(("slot", "provider", "generation", *KEPT))
_PARTS = {
    "leased": SQL("lease_owner = %(owner)s, lease_expires_at = now() + %(lease)s"),
    "free": SQL("(lease_expires_at IS NULL OR lease_expires_at <= now())"),
    "place": names(("slot", "provider", "generation", *KEPT), "stock"),
}

_RESUME = SQL(
    """
    UPDATE stock SET generation = generation + 1, {leased}
    FROM (
        SELECT slot FROM stock
        WHERE provider = %(provider)s AND NOT ready AND made_of = %(made_of)s
          AND number <= %(size)s AND {free}
        ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED
    ) AS left_over
    WHERE stock.slot = left_over.slot RETURNING {place}
    """
).format(**_PARTS)

# Of two that want the same number, one gets nothing, and looks again later.
_ADD = SQL(
    """
    INSERT INTO stock (provider, number, made_of, lease_owner, lease_expires_at)
    SELECT %(provider)s, number, %(made_of)s, %(owner)s, now() + %(lease)s
    FROM generate_series(1, %(size)s) AS number
    WHERE NOT EXISTS (
        SELECT FROM stock WHERE stock.provider = %(provider)s AND stock.number = number.number
    )
    ORDER BY number LIMIT 1
    ON CONFLICT DO NOTHING RETURNING {}
    """
).format(_PLACE)

_SURPLUS = SQL(
    """
    UPDATE stock SET generation = generation + 1, ready = false, {leased}
    FROM (
        SELECT slot FROM stock
        WHERE provider = %(provider)s AND {free}
          AND (number > %(size)s OR made_of <> %(made_of)s AND made_at < now() - %(old)s)
        ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED
    ) AS needless
    WHERE stock.slot = needless.slot RETURNING {place}
    """
).format(**_PARTS)

# The user's row is locked first: if it is not as it was, nothing is taken.
_CLAIM = SQL(
    """
    WITH mine AS (
        SELECT user_id FROM machines
        WHERE user_id = %(user_id)s AND generation = %(generation)s FOR UPDATE
    ), chosen AS (
        SELECT slot FROM stock
        WHERE provider = %(provider)s AND ready AND made_of = %(made_of)s
          AND EXISTS (SELECT FROM mine)
        ORDER BY made_at LIMIT 1 FOR UPDATE SKIP LOCKED
    ), taken AS (
        DELETE FROM stock USING chosen WHERE stock.slot = chosen.slot RETURNING stock.*
    )
    UPDATE machines SET generation = machines.generation + 1,
        app = taken.app, machine_id = taken.machine_id, volume_id = taken.volume_id,
        region = taken.region, image = taken.image, size = taken.size,
        provision_step = %(step)s
    FROM taken WHERE machines.user_id = %(user_id)s RETURNING {}
    """
).format(names(MACHINE_COLUMNS, "machines"))

_IS_SO = "SELECT 1 FROM machines WHERE user_id = %s AND generation = %s"
_READY = """
    UPDATE stock SET ready = true, generation = generation + 1, made_at = now(),
        lease_owner = NULL, lease_expires_at = NULL
    WHERE slot = %s AND generation = %s RETURNING 1
    """
_DROP = "DELETE FROM stock WHERE slot = %s AND generation = %s RETURNING 1"
_PLACES = SQL("SELECT {} FROM stock WHERE provider = %s ORDER BY number").format(_PLACE)
_COUNT = "SELECT count(*) FROM stock WHERE provider = %s AND made_of = %s AND ready"


@implementer(IStock)
class PostgresStock:
    """The table C{stock}. Made by L{matrix.directory.open_directory}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def begin(self, provider: str, size: int, made_of: str, owner: str) -> Machine | None:
        """See L{IStock.begin}."""
        values = _values(provider, size, made_of, owner)
        rows = await self._pool.query(_RESUME, values) or await self._pool.query(_ADD, values)
        return _place(rows[0]) if rows else None

    async def surplus(self, provider: str, size: int, made_of: str, owner: str) -> Machine | None:
        """See L{IStock.surplus}."""
        rows = await self._pool.query(_SURPLUS, _values(provider, size, made_of, owner))
        return _place(rows[0]) if rows else None

    async def change(self, place: Machine, **fields: object) -> Machine:
        """See L{IStock.change}."""
        check_kept(fields)
        changed = [SQL("{} = %s").format(Identifier(name)) for name in fields]
        prolonged = SQL("generation = generation + 1, lease_expires_at = now() + %s")
        statement = SQL(
            "UPDATE stock SET {} WHERE slot = %s AND generation = %s RETURNING {}"
        ).format(SQL(", ").join([*changed, prolonged]), _PLACE)
        guard = (LEASE, place.user_id, place.generation)
        rows = await self._pool.query(statement, (*fields.values(), *guard))
        return _place(_one(rows, place))

    async def ready(self, place: Machine) -> None:
        """See L{IStock.ready}."""
        _one(await self._pool.query(_READY, (place.user_id, place.generation)), place)

    async def drop(self, place: Machine) -> None:
        """See L{IStock.drop}."""
        _one(await self._pool.query(_DROP, (place.user_id, place.generation)), place)

    async def claim(self, machine: Machine, made_of: str, step: str) -> Machine | None:
        """See L{IStock.claim}."""
        guard = (machine.user_id, machine.generation)
        values = dict(zip(("user_id", "generation"), guard, strict=True))
        values |= {"provider": machine.provider, "made_of": made_of, "step": step}
        rows = await self._pool.query(_CLAIM, values)
        if rows:
            return to_machine(rows[0])
        if not await self._pool.query(_IS_SO, guard):
            raise StaleRow(f"the machine of {machine.user_id} changed since it was read")
        return None

    async def places(self, provider: str) -> Sequence[Machine]:
        """See L{IStock.places}."""
        return [_place(row) for row in await self._pool.query(_PLACES, (provider,))]

    async def count(self, provider: str, made_of: str) -> int:
        """See L{IStock.count}."""
        [[number]] = await self._pool.query(_COUNT, (provider, made_of))
        return int(number)


def check_kept(fields: Mapping[str, object]) -> None:
    """
    @raise TypeError: a machine without a user has no such attribute, or not with this value.
    """
    check_changes(fields)
    for name in fields:
        if name not in KEPT:
            raise TypeError(f"{name!r} is not known of a machine without a user")


def _values(provider: str, size: int, made_of: str, owner: str) -> Mapping[str, object]:
    return {"provider": provider, "size": size, "made_of": made_of, "owner": owner,
            "lease": LEASE, "old": OLD}  # fmt: skip


def _place(row: Row) -> Machine:
    slot, provider, generation, *kept = row
    known = dict(zip(KEPT, kept, strict=True))
    return Machine(UserId(slot), provider, MachineState.PROVISIONING, generation, **known)


def _one(rows: Sequence[Row], place: Machine) -> Row:
    if not rows:
        raise StaleRow(f"the place {place.user_id} in stock is another router's by now")
    return rows[0]
