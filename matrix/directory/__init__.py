"""Who has which machine, and in which state: the record that all routers share."""

from matrix.directory._memory import MemoryDirectory
from matrix.directory.interfaces import DirectoryUnavailable, IDirectory, StaleRow, UnknownUser

__all__ = ["DirectoryUnavailable", "IDirectory", "MemoryDirectory", "StaleRow", "UnknownUser"]
