"""A few connections shared by all queries; a broken one is replaced when next needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from matrix.directory._connection import Connection, is_outage
from matrix.directory._deferreds import shielded, within
from matrix.directory._dsn import first_line
from matrix.directory._rows import Row
from matrix.directory._statements import Statement
from matrix.directory.interfaces import DirectoryUnavailable

QUERY_SECONDS = 10.0
"""For a query, and as much for its turn: every statement here takes milliseconds, so this is
the network's or the server's trouble."""

Values = Sequence[object] | Mapping[str, object]

Connector = Callable[[Callable[[], None]], Awaitable[Connection]]
"""Opens a connection; is given what to call when the connection is lost while idle."""


class Pool:
    """
    Runs queries, each a transaction of its own, on at most C{size} connections.

    txpostgres's pool opens all its connections at the start and never again; this one opens
    them as needed, so that a restart of the server heals by itself.
    """

    def __init__(self, connector: Connector, clock: IReactorTime, size: int) -> None:
        self._connector = connector
        self._clock = clock
        self._size = size
        self._turns = DeferredSemaphore(size)
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._closed = False

    def query(self, statement: Statement, values: Values = ()) -> Deferred[list[Row]]:
        """
        The rows that a statement returns; it must be one that returns rows.

        Cancelling abandons the result: the statement still runs to its end.

        @raise DirectoryUnavailable: the database cannot be reached, or is in trouble.
        @raise psycopg2.Error: the statement's own error.
        """
        return shielded(Deferred.fromCoroutine(self._run(statement, values)))

    def close(self) -> None:
        """Close all connections; queries under way fail."""
        self._closed = True
        for connection in tuple(self._open):
            connection.close()

    async def _run(self, statement: Statement, values: Values) -> list[Row]:
        await self._turn()
        try:
            connection = await self._take()
            try:
                return await self._ask(connection, statement, values)
            finally:
                self._put_back(connection)
        finally:
            self._turns.release()

    async def _turn(self) -> None:
        turn = self._turns.acquire()
        turn.addTimeout(QUERY_SECONDS, self._clock)
        try:
            await turn
        except DeferredTimeout:
            raise DirectoryUnavailable(
                f"all {self._size} connections were busy for {QUERY_SECONDS:g} s"
            ) from None

    async def _take(self) -> Connection:
        self._refuse_if_closed()
        if self._idle:
            return self._idle.pop()
        connection = await self._connector(self._forget_dead)
        self._open.add(connection)
        if self._closed:
            connection.close()
            self._put_back(connection)
        self._refuse_if_closed()
        return connection

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise DirectoryUnavailable("the directory is closed")

    async def _ask(self, connection: Connection, statement: Statement, values: Values) -> list[Row]:
        # None instead of no values: a % in the statement is then only a %.
        asking: Deferred[Any] = connection.runQuery(statement, values or None)
        try:
            return list(await within(self._clock, QUERY_SECONDS, asking, connection.close))
        except BaseException as error:
            if is_outage(error, connection):
                raise DirectoryUnavailable(first_line(error)) from None
            raise

    def _put_back(self, connection: Connection) -> None:
        if connection.alive:
            self._idle.append(connection)
        else:
            self._open.discard(connection)

    def _forget_dead(self) -> None:
        self._idle = [connection for connection in self._idle if connection.alive]
        self._open = {connection for connection in self._open if connection.alive}
