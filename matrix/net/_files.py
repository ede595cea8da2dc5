"""How many files, connections included, this process may have open, and who may use them up."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from matrix.errors import ConfigurationError, Unavailable

MOST = 1_048_576
"""What Linux allows at most unless told otherwise (fs.nr_open). Where the hard limit is higher,
programs that we start and that walk through all numbers up to it would take minutes."""

FEWEST = 512
"""Files with which Matrix starts at all: those it keeps for itself, and as many for clients."""

RESERVED_FILES = 256
"""File descriptors that clients cannot take: for machines, the database, logs, the listener."""

MACHINES_LEAVE = 128
"""Of the reserved ones, those that connections to machines cannot take."""

OPERATORS_LEAVE = 64
"""Of these again, those that the internal listener's clients cannot take: enough for the
database, the logs, and a few machines being started at once (six pipes each)."""


@dataclass(frozen=True, slots=True)
class FileShares:
    """
    From which file number on somebody gets no more files.

    The kernel gives out the lowest number that is free (open(2)): who is given number n knows
    that n files are open besides. Nothing has to be counted, and what others open is seen.
    """

    clients: int
    machines: int
    operators: int


def file_shares() -> FileShares:
    """
    Who may have how many files, under the present limit.

    @raise ConfigurationError: it leaves nothing for clients.
    """
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < FEWEST:
        raise ConfigurationError(
            f"this process may open {limit} files, and needs {FEWEST} at least: raise the limit "
            "(LimitNOFILE= for systemd, ulimit -n in a shell)"
        )
    return FileShares(limit - RESERVED_FILES, limit - MACHINES_LEAVE, limit - OPERATORS_LEAVE)


def check_free(files: int) -> None:
    """
    See that another file may be opened.

    @param files: the number that the file must stay below.
    @raise Unavailable: it would not, or there is none.
    """
    try:
        number = os.eventfd(0)  # the cheapest file there is
    except OSError:
        number = files
    else:
        os.close(number)
    if number >= files:
        raise Unavailable("Too many connections are open.", reason="connections", retry_after=1.0)


def allow_many_files() -> int:
    """
    Raise the soft limit, usually 1024, to the hard one: a proxy needs two for each request.

    @return: the limit as it is now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
