"""A user of the operating system for each machine, given once and never again."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom

from matrix.machines.interfaces import ProviderError
from matrix.model import UserId
from matrix.processes import user_members

WIDE = range(700_000, 16_700_000)
"""Above every range that distributions give to people, services and containers, and below
2**24. Wide, and drawn from at random, because several state directories on one host know
nothing of each other."""

NARROW = range(20_000, 60_000)
"""For containers, whose id map usually ends at 65535; systemd takes 61184 to 65519."""

_RANDOM = SystemRandom()

ATTEMPTS = 1000
"""A free number is found in the first draw nearly always."""


def usable_uids(uid_map: str) -> range | None:
    """
    The numbers to draw from under an id map (C{/proc/self/uid_map}, user_namespaces(7)).

    @return: C{None} if it maps too few to give each machine its own.
    """
    spans = [tuple(map(int, line.split())) for line in uid_map.splitlines()]
    for wanted in (WIDE, NARROW):
        if any(first <= wanted[0] and wanted[-1] < first + count for first, _, count in spans):
            return wanted
    return None


def _taken(uid: int) -> bool:
    """Whether somebody else on this host is known to use the number."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return bool(user_members(uid))
    return True


class Uids:
    """
    Numbers given away, each a file in a directory that names whose it is.

    The file is there before the number is used and stays when the machine is gone: files
    that a destroyed machine left anywhere must not become another user's.
    """

    def __init__(
        self,
        directory: Path,
        numbers: range,
        taken: Callable[[int], bool] = _taken,
        draw: Callable[[range], int] = _RANDOM.choice,
    ) -> None:
        """
        @param taken: whether a number is in use outside C{directory}.
        @param draw: picks a number to try.
        """
        self._directory = directory
        self._numbers = numbers
        self._taken = taken
        self._draw = draw

    def allocate(self, user_id: UserId) -> int:
        """
        A number for a new machine. Blocks: call it in a thread.

        @raise ProviderError: none can be found.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        for _ in range(ATTEMPTS):
            uid = self._draw(self._numbers)
            if self._taken(uid):
                continue
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                descriptor = os.open(self._directory / str(uid), flags, 0o600)
            except FileExistsError:
                continue
            with open(descriptor, "w") as file:
                file.write(user_id)
                file.flush()
                os.fsync(descriptor)
            return uid
        raise ProviderError(
            f"no free user id found in {self._numbers[0]}-{self._numbers[-1]}; "
            f"{self._directory} lists those given away"
        )


def own_uids(directory: Path, wanted: range | None) -> Uids | None:
    """
    Where machines get users of their own from; C{None} if they run as us.

    That is so without root, and in a container with too small an id map.
    """
    if os.geteuid() != 0:
        return None
    numbers = wanted or usable_uids(Path("/proc/self/uid_map").read_text("ascii"))
    return None if numbers is None else Uids(directory, numbers)
