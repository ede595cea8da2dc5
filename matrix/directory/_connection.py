"""One connection to PostgreSQL in the reactor: its loss is an event, its silence has an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2
from psycopg2 import errorcodes
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from txpostgres import txpostgres

from matrix.directory._deferreds import within
from matrix.directory._dsn import Parameters, candidates, first_line
from matrix.directory.interfaces import DirectoryUnavailable

CONNECT_SECONDS = 5.0
"""For each address; a database in the same region answers in milliseconds."""


def nothing(*_: object) -> None:
    """A callback for what nobody wants to hear of."""


class Connection(txpostgres.Connection):  # type: ignore[misc]
    """
    txpostgres's connection with three differences: notifications are handed over as they
    come, the end of an idle connection is reported instead of raised into the reactor, and
    closing in mid-query leaves no descriptor registered.
    """

    def __init__(
        self,
        reactor: Any,
        heard: Callable[[str, str], None] = nothing,
        lost: Callable[[], None] = nothing,
    ) -> None:
        """
        @param heard: called with the channel and the payload of each notification.
        @param lost: called once when the server ends the connection while it is idle.
        """
        super().__init__(reactor)
        self._heard = heard
        self._lost = lost

    @property
    def alive(self) -> bool:
        """Whether it can be used, as far as is known."""
        return self._connection is not None and not self._connection.closed

    def doRead(self) -> None:
        """Called by the reactor: a notification, or the end."""
        try:
            super().doRead()
        except (psycopg2.Error, ValueError):
            # ValueError: its socket is closed, which psycopg2 has not noticed.
            self.close()
            self._lost()

    def checkForNotifies(self) -> None:
        """Called by txpostgres when there may be notifications."""
        notifies = self._connection.notifies
        while notifies:
            notify = notifies.pop(0)
            self._heard(notify.channel, notify.payload)

    def close(self) -> None:
        """Close it; a query under way fails. May be called at any time, also twice."""
        if self._connection is None:
            return
        for cursor in self._cursors:
            # The cursor waits on the same descriptor. Closing it first would leave the
            # event loop watching a number that the next socket gets.
            self.reactor.removeReader(cursor)
            self.reactor.removeWriter(cursor)
        super().close()


async def connect(
    reactor: Any,
    parameters: Parameters,
    heard: Callable[[str, str], None] = nothing,
    lost: Callable[[], None] = nothing,
) -> Connection:
    """
    Open a connection.

    @raise DirectoryUnavailable: it cannot be had now.
    """
    threads: IReactorThreads = reactor
    try:
        places = await deferToThreadPool(reactor, threads.getThreadPool(), candidates, parameters)
    except OSError as error:
        raise DirectoryUnavailable(f"{parameters['host']} has no address: {error}") from None
    failure = DirectoryUnavailable("there is no address to connect to")
    for place in places:
        connection = Connection(reactor, heard, lost)
        try:
            opening = connection.connect(**place)
            await within(reactor, CONNECT_SECONDS, opening, connection.close)
        except (DirectoryUnavailable, psycopg2.Error) as error:
            connection.close()
            failure = DirectoryUnavailable(first_line(error))
        else:
            return connection
    raise failure


def is_outage(error: BaseException, connection: Connection) -> bool:
    """
    Whether a query's error is the database's trouble, not the statement's. A connection
    that cannot be trusted any more is closed.
    """
    if isinstance(error, psycopg2.Error) and error.pgcode == errorcodes.READ_ONLY_SQL_TRANSACTION:
        # The server became a standby: its successor is behind the same name.
        connection.close()
        return True
    # A cancelled query was cancelled on the server; nobody here does that.
    outages = (psycopg2.OperationalError, psycopg2.InterfaceError, ConnectionClosed, CancelledError)
    return not connection.alive or isinstance(error, outages)
