"""Opening the directory: tables brought up to date, connections made, changes heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2
from twisted.internet.threads import deferToThreadPool

from matrix.directory._connection import Connection, connect
from matrix.directory._dsn import first_line, parse
from matrix.directory._listener import Listener
from matrix.directory._migrate import migrate
from matrix.directory._pool import Pool
from matrix.directory._postgres import PostgresDirectory
from matrix.directory._rows import to_access_change
from matrix.directory._sessions import PostgresSessions
from matrix.directory._watchers import Watchers
from matrix.directory.interfaces import DirectoryUnavailable
from matrix.errors import ConfigurationError
from matrix.model import AccessChange, UserId

CONNECTIONS = 4
"""Per process, besides the listening one. Queries are short and few: none on the warm path."""


async def open_directory(
    reactor: Any, dsn: str, *, connections: int = CONNECTIONS, migrated: bool = False
) -> PostgresDirectory:
    """
    The directory in this database, ready for use.

    @param reactor: IReactorFDSet, IReactorTime, IReactorThreads.
    @param dsn: libpq's connection string.
    @param migrated: whether the tables are known to be up to date.
    @raise ConfigurationError: the database is unreachable or refuses us; says why, in one
        line and without the password.
    """
    parameters = parse(dsn)
    if not migrated:
        try:
            await deferToThreadPool(reactor, reactor.getThreadPool(), migrate, dsn)
        except psycopg2.Error as error:
            raise _refusal(error) from None

    async def connect_idle(lost: Callable[[], None]) -> Connection:
        return await connect(reactor, parameters, lost=lost)

    async def connect_listening(
        heard: Callable[[str, str], None], lost: Callable[[], None]
    ) -> Connection:
        return await connect(reactor, parameters, heard, lost)

    machines: Watchers[UserId] = Watchers()
    access: Watchers[AccessChange] = Watchers()
    # A notification that says nothing is as good as one that was missed.
    channels = {
        "machine": lambda payload: machines.tell(UserId(payload) if payload else None),
        "access": lambda payload: access.tell(to_access_change(payload or "")),
    }
    listener = Listener(connect_listening, reactor, channels)
    try:
        await listener.start()
    except DirectoryUnavailable as error:
        raise _refusal(error) from None
    pool = Pool(connect_idle, reactor, connections)
    return PostgresDirectory(pool, listener, machines, PostgresSessions(pool, access))


def _refusal(error: BaseException) -> ConfigurationError:
    return ConfigurationError(
        f"the database cannot be opened: {first_line(error)}; check DATABASE_URL and the server"
    )
