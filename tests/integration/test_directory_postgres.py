"""The directory over a real PostgreSQL: the contract, outages, restarts, queries cut short."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from matrix.directory import open_directory
from matrix.model import User, UserId
from matrix.testing import directory_suite, postgres


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


class PostgresContractTests(directory_suite.DirectoryContract, DatabaseCase):
    """Every test of the contract."""

    async def put_user(self, user: User) -> None:
        timeout = "NULL" if user.idle_timeout is None else user.idle_timeout
        self.sql(
            f"UPDATE users SET email = '{user.email}', state = '{user.state}',"
            f" idle_timeout_s = {timeout} WHERE id = '{user.id}'"
        )

    async def drop_machine(self, user_id: UserId) -> None:
        self.sql(f"DELETE FROM machines WHERE user_id = '{user_id}'")

    async def eventually(self, condition: Callable[[], bool]) -> None:
        await until(condition)
