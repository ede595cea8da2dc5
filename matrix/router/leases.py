"""Which busy leases keep machines awake: a machine may work on alone, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta

from matrix.directory import IDirectory
from matrix.model import Busy, Machine, UserId

LONGEST = 3600.0
"""C{MATRIX_BUSY_MAX}, unless it is told."""


def last_use(machine: Machine) -> datetime | None:
    """When somebody last wanted the machine, as far as its row tells."""
    known = [at for at in (machine.last_active_at, machine.last_wake_at) if at is not None]
    return max(known, default=None)


def end_of(busy: Busy, machine: Machine | None, longest: float) -> datetime:
    """
    Until when a lease keeps its machine awake: as long as was asked for, and no longer than it
    may without use.

    @param longest: seconds without use.
    """
    used = last_use(machine) if machine is not None else None
    return min(busy.until, (used or busy.since) + timedelta(seconds=longest))


class Leases:
    """The busy leases, as far as they count."""

    def __init__(
        self,
        directory: IDirectory,
        longest: float = LONGEST,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        @param longest: seconds without use for which leases keep a machine awake.
        @param now: the unix time, seconds.
        """
        self._directory = directory
        self._longest = longest
        self._now = now

    async def of(self, user_ids: Collection[UserId]) -> Mapping[UserId, Busy]:
        """
        What those of these users' machines are busy with that are, whether it counts or not.

        @raise DirectoryUnavailable: that cannot be known now.
        """
        return await self._directory.busy.of(user_ids)

    def counts(self, busy: Busy | None, machine: Machine | None) -> bool:
        """Whether a lease keeps its machine awake now."""
        if busy is None:
            return False
        return end_of(busy, machine, self._longest) > datetime.fromtimestamp(self._now(), UTC)

    async def hold(self, machine: Machine) -> bool:
        """
        Whether a lease keeps this machine awake now.

        @raise DirectoryUnavailable: that cannot be known now.
        """
        found = await self.of([machine.user_id])
        return self.counts(found.get(machine.user_id), machine)
