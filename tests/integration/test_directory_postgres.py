"""The directory over a real PostgreSQL: the contract, outages, restarts, queries cut short."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from matrix.directory import open_directory
from matrix.model import User, UserId
from matrix.testing import (
    awake_suite,
    busy_suite,
    directory_suite,
    housekeeping_suite,
    postgres,
    sessions_suite,
    sign_ins_suite,
    snapshots_suite,
    stock_suite,
    tickets_suite,
    upkeep_suite,
    wakes_suite,
)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Let the reactor turn until C{condition} is true."""
    deadline = reactor.seconds() + seconds
    while not condition():
        assert reactor.seconds() < deadline, "it did not become true in time"
        await deferLater(reactor, 0.005)


class DatabaseCase(TestCase):
    """A directory in a database of its own."""

    async def setUp(self) -> None:
        self.dsn = postgres.fresh_database()
        self.addCleanup(postgres.drop_database, self.dsn)
        self.directory = self.postgres = await open_directory(reactor, self.dsn)
        self.addCleanup(self.close)

    def close(self) -> Deferred[None]:
        return ensureDeferred(self.postgres.close())

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        return postgres.execute(statement, self.dsn)


class ContractCase(directory_suite.DirectoryCase, DatabaseCase):
    """What contracts ask to be done behind the directory's back."""

    async def put_user(self, user: User) -> None:
        timeout = "NULL" if user.idle_timeout is None else user.idle_timeout
        self.sql(
            f"UPDATE users SET email = '{user.email}', state = '{user.state}',"
            f" idle_timeout_s = {timeout} WHERE id = '{user.id}'"
        )

    async def eventually(self, condition: Callable[[], bool]) -> None:
        await until(condition)

    async def drop_machine(self, user_id: UserId) -> None:
        self.sql(f"DELETE FROM machines WHERE user_id = '{user_id}'")


class PostgresContractTests(directory_suite.DirectoryContract, ContractCase):
    """Every test of the contract."""


class PostgresWakesTests(wakes_suite.WakesContract, ContractCase):
    """Every test of the contract of wakes."""


class PostgresAwakeTests(awake_suite.AwakeContract, ContractCase):
    """Every test of the contract of who is awake."""

    async def let_pass(self, seconds: float) -> None:
        # The server's clock is the machine's: instead of it, what is on record moves back.
        self.sql(f"UPDATE awake SET since = since - interval '{seconds} s'")
        self.sql(f"UPDATE awake_days SET day = day - {int(seconds // awake_suite.DAY)}")

    async def test_a_user_whose_row_is_deleted_leaves_nothing_awake(self) -> None:
        machine = await self.up(await self.asleep())
        self.sql(f"DELETE FROM users WHERE id = '{machine.user_id}'")
        self.assertEqual(self.sql("SELECT * FROM awake"), [])


class PostgresSessionsTests(sessions_suite.SessionsContract, ContractCase):
    """Every test of the sessions' contract."""

    def now(self) -> float:
        [[now]] = self.sql("SELECT extract(epoch FROM clock_timestamp())::double precision")
        assert isinstance(now, float)
        return now

    async def let_pass(self, seconds: float) -> None:
        # The server's clock is the machine's: instead of it, what is on record moves back.
        columns = ("seen_at", "expires_at", "revoked_at", "revoked_until")
        earlier = ", ".join(f"{column} = {column} - interval '{seconds} s'" for column in columns)
        self.sql(f"UPDATE sessions SET {earlier} WHERE expires_at < '9000-01-01'")


class PostgresBusyTests(busy_suite.BusyContract, ContractCase):
    """Every test of the leases' contract."""

    def now(self) -> float:
        [[now]] = self.sql("SELECT extract(epoch FROM clock_timestamp())::double precision")
        assert isinstance(now, float)
        return now

    async def let_pass(self, seconds: float) -> None:
        earlier = ", ".join(
            f"{name} = {name} - interval '{seconds} s'" for name in ("since", "until")
        )
        self.sql(f"UPDATE busy SET {earlier}")


class PostgresStockTests(stock_suite.StockContract, ContractCase):
    """Every test of the stock's contract."""

    async def let_pass(self, seconds: float) -> None:
        columns = ("made_at", "lease_expires_at")
        earlier = ", ".join(f"{one} = {one} - interval '{seconds} s'" for one in columns)
        self.sql(f"UPDATE stock SET {earlier}")


class PostgresTicketsTests(tickets_suite.TicketsContract, ContractCase):
    """Every test of the tickets' contract."""

    async def let_pass(self, seconds: float) -> None:
        self.sql(f"UPDATE tickets SET expires_at = expires_at - interval '{seconds} s'")

    async def count(self) -> int:
        return len(self.sql("SELECT digest FROM tickets"))


class PostgresHousekeepingTests(housekeeping_suite.HousekeepingContract, ContractCase):
    """Every test of the housekeeping's contract."""

    async def let_pass(self, seconds: float) -> None:
        for table, columns in (
            ("strays", ("first_seen", "last_seen")),
            ("duties", ("lease_expires_at", "done_at")),
            ("paces", ("next_at",)),
        ):
            earlier = ", ".join(f"{one} = {one} - interval '{seconds} s'" for one in columns)
            self.sql(f"UPDATE {table} SET {earlier}")


class PostgresSnapshotsTests(snapshots_suite.SnapshotsContract, ContractCase):
    """Every test of the snapshots' contract."""

    async def let_pass(self, seconds: float) -> None:
        columns = ("started_at", "finished_at", "verified_at", "lease_expires_at")
        earlier = ", ".join(f"{column} = {column} - interval '{seconds} s'" for column in columns)
        self.sql(f"UPDATE snapshots SET {earlier}")
        self.sql(
            f"UPDATE snapshot_times SET due_at = due_at - interval '{seconds} s',"
            f" good_at = good_at - interval '{seconds} s'"
        )


class PostgresSignInsTests(sign_ins_suite.SignInsContract, ContractCase):
    """Every test of the sign-ins' contract."""

    def now(self) -> float:
        [[now]] = self.sql("SELECT extract(epoch FROM clock_timestamp())::double precision")
        assert isinstance(now, float)
        return now

    async def let_pass(self, seconds: float) -> None:
        earlier = ", ".join(
            f"{column} = {column} - interval '{seconds} s'"
            for column in ("ends_at", "lease_expires_at")
        )
        self.sql(f"UPDATE sign_ins SET {earlier}")


class PostgresUpkeepTests(upkeep_suite.UpkeepContract, ContractCase):
    """Every test of the upkeep's contract."""

    async def let_pass(self, seconds: float) -> None:
        due = ("thin_at", "scrub_at", "erase_at", "drilled_at", "deleted_at", "lease_expires_at")
        earlier = ", ".join(f"{column} = {column} - interval '{seconds} s'" for column in due)
        self.sql(f"UPDATE upkeep SET {earlier}")
