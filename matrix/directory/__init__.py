"""Who has which machine, and in which state: the record that all routers share."""

from matrix.directory._memory import MemoryDirectory
from matrix.directory._migrate import migrate
from matrix.directory._open import open_directory
from matrix.directory._postgres import PostgresDirectory
from matrix.directory.embedded import EmbeddedPostgres
from matrix.directory.interfaces import (
    DirectoryUnavailable,
    IDirectory,
    ISessions,
    ISignIns,
    ITickets,
    StaleRow,
    UnknownUser,
)

__all__ = [
    "DirectoryUnavailable",
    "EmbeddedPostgres",
    "IDirectory",
    "ISessions",
    "ISignIns",
    "ITickets",
    "MemoryDirectory",
    "PostgresDirectory",
    "StaleRow",
    "UnknownUser",
    "migrate",
    "open_directory",
]
