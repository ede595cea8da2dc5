"""Who has which machine, and in which state: the record that all routers share."""

from matrix.directory._isnapshots import ISnapshots
from matrix.directory._memory import MemoryDirectory
from matrix.directory._migrate import migrate
from matrix.directory._open import open_directory
from matrix.directory._postgres import PostgresDirectory
from matrix.directory.awake import FleetWaking, IAwake, Spell, Waking
from matrix.directory.embedded import EmbeddedPostgres
from matrix.directory.housekeeping import IDuties, IPaces, IRoll, IStrays, Named
from matrix.directory.interfaces import (
    Chore,
    DirectoryUnavailable,
    Erasing,
    IBusy,
    IDirectory,
    ISessions,
    ISignIns,
    IStock,
    ITickets,
    IUpkeep,
    StaleRow,
    UnknownUser,
    Upkeep,
)
from matrix.directory.wakes import Found, IWakes, Past

__all__ = [
    "Chore",
    "DirectoryUnavailable",
    "EmbeddedPostgres",
    "Erasing",
    "FleetWaking",
    "Found",
    "IAwake",
    "IBusy",
    "IDirectory",
    "IDuties",
    "IPaces",
    "IRoll",
    "ISessions",
    "ISignIns",
    "ISnapshots",
    "IStock",
    "IStrays",
    "ITickets",
    "IUpkeep",
    "IWakes",
    "MemoryDirectory",
    "Named",
    "Past",
    "PostgresDirectory",
    "Spell",
    "StaleRow",
    "UnknownUser",
    "Upkeep",
    "Waking",
    "migrate",
    "open_directory",
]
