"""Who has which machine, and in which state: the record that all routers share."""

from matrix.directory._memory import MemoryDirectory
from matrix.directory._migrate import migrate
from matrix.directory._open import open_directory
from matrix.directory._postgres import PostgresDirectory
from matrix.directory.embedded import EmbeddedPostgres
from matrix.directory.housekeeping import IDuties, IPaces, IRoll, IStrays
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
    "IDuties",
    "IPaces",
    "IRoll",
    "ISessions",
    "ISignIns",
    "IStrays",
    "ITickets",
    "MemoryDirectory",
    "PostgresDirectory",
    "StaleRow",
    "UnknownUser",
    "migrate",
    "open_directory",
]
