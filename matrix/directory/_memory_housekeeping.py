"""The routers' housekeeping in the directory's in-memory twin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory.housekeeping import IDuties, IPaces, IRoll, IStrays, Named
from matrix.model import Machine, MachineState, Stray, User, UserId


@implementer(IRoll)
class MemoryRoll:
    """The machines' rows in bulk. Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(
        self,
        clock: IReactorTime,
        reach: Callable[[], None],
        users: Mapping[UserId, User],
        machines: Mapping[UserId, Machine],
    ) -> None:
        """
        @param reach: called first in each awaitable method; raises while there is an outage.
        @param users: the directory's own; C{machines} as well.
        """
        self._clock = clock
        self._reach = reach
        self._users = users
        self._machines = machines

    async def of(self, user_ids: Collection[UserId]) -> Mapping[UserId, Machine]:
        """See L{IRoll.of}."""
        self._reach()
        return {one: self._machines[one] for one in user_ids if one in self._machines}

    async def in_states(
        self,
        provider: str,
        states: Collection[MachineState],
        after: UserId | None = None,
        limit: int = 500,
    ) -> Sequence[Machine]:
        """See L{IRoll.in_states}."""
        return self._page(provider, lambda row: row.state in states, after, limit)

    async def overdue(
        self, provider: str, idle: float, after: UserId | None = None, limit: int = 500
    ) -> Sequence[Machine]:
        """See L{IRoll.overdue}."""
        now = self._clock.seconds()

        def is_overdue(row: Machine) -> bool:
            used = row.last_active_at or row.last_wake_at
            own = self._users[row.user_id].idle_timeout
            seconds = now if used is None else now - used.timestamp()
            return row.state is MachineState.RUNNING and seconds > max(idle, own or 0.0)

        return self._page(provider, is_overdue, after, limit)

    async def made(
        self, provider: str, after: UserId | None = None, limit: int = 1000
    ) -> Sequence[Named]:
        """See L{IRoll.made}."""
        page = self._page(provider, lambda row: any(_named(row)), after, limit)
        return [Named(row.user_id, row.state, row.region, *_named(row)) for row in page]

    async def naming(self, id: str) -> Sequence[Machine]:
        """See L{IRoll.naming}."""
        self._reach()
        return [row for row in self._machines.values() if id in _named(row)]

    async def counts(self) -> Mapping[MachineState, int]:
        """See L{IRoll.counts}."""
        self._reach()
        return Counter(machine.state for machine in self._machines.values())

    def _page(
        self, provider: str, wanted: Callable[[Machine], bool], after: UserId | None, limit: int
    ) -> Sequence[Machine]:
        self._reach()
        found = sorted(
            (row for row in self._machines.values() if row.user_id > (after or "")),
            key=lambda row: row.user_id,
        )
        return [row for row in found if row.provider == provider and wanted(row)][:limit]


@implementer(IStrays)
class MemoryStrays:
    """Strays in a dictionary. Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(self, clock: IReactorTime, reach: Callable[[], None]) -> None:
        """@param reach: as L{MemoryRoll} has it."""
        self._clock = clock
        self._reach = reach
        self._strays: dict[str, Stray] = {}

    async def note(self, strays: Collection[Stray]) -> Sequence[Stray]:
        """See L{IStrays.note}."""
        self._reach()
        now = datetime.fromtimestamp(self._clock.seconds(), UTC)
        for stray in strays:
            first = getattr(self._strays.get(stray.id), "first_seen", now)
            self._strays[stray.id] = replace(stray, first_seen=first, last_seen=now)
        return [self._strays[stray.id] for stray in strays]

    async def settle(
        self, provider: str, seen: Collection[str], blind: Collection[str]
    ) -> Sequence[Stray]:
        """See L{IStrays.settle}."""
        self._reach()
        over = [
            stray
            for stray in self._strays.values()
            if stray.provider == provider and stray.id not in seen and stray.region not in blind
        ]
        for stray in over:
            del self._strays[stray.id]
        return over

    async def remove(self, id: str) -> None:
        """See L{IStrays.remove}."""
        self._reach()
        self._strays.pop(id, None)

    async def all(self, after: str | None = None, limit: int = 1000) -> Sequence[Stray]:
        """See L{IStrays.all}."""
        self._reach()
        later = sorted(id for id in self._strays if id > (after or ""))
        return [self._strays[id] for id in later[:limit]]


@implementer(IDuties)
class MemoryDuties:
    """Duties in a dictionary. Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(self, clock: IReactorTime, reach: Callable[[], None]) -> None:
        """@param reach: as L{MemoryRoll} has it."""
        self._clock = clock
        self._reach = reach
        self._leases: dict[str, tuple[str, float]] = {}
        self._done: dict[str, float] = {}

    async def claim(self, name: str, owner: str, seconds: float, every: float = 0.0) -> bool:
        """See L{IDuties.claim}."""
        self._reach()
        now = self._clock.seconds()
        holder, until = self._leases.get(name, ("", 0.0))
        if holder != owner:
            done_at = self._done.get(name)
            if (holder and until > now) or (done_at is not None and done_at > now - every):
                return False
        self._leases[name] = owner, now + seconds
        return True

    async def release(self, name: str, owner: str, *, done: bool) -> None:
        """See L{IDuties.release}."""
        self._reach()
        if self._leases.get(name, ("", 0.0))[0] == owner:
            del self._leases[name]
            if done:
                self._done[name] = self._clock.seconds()


@implementer(IPaces)
class MemoryPaces:
    """Paces in a dictionary. Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(self, clock: IReactorTime, reach: Callable[[], None]) -> None:
        """@param reach: as L{MemoryRoll} has it."""
        self._clock = clock
        self._reach = reach
        self._next: dict[str, float] = {}

    async def turn(self, name: str, per_second: float, burst: int) -> float:
        """See L{IPaces.turn}."""
        self._reach()
        now, interval = self._clock.seconds(), 1 / per_second
        earliest = now - (burst - 1) * interval
        turn = max(self._next.get(name, earliest), earliest)
        self._next[name] = turn + interval
        return max(0.0, turn - now)

    async def hold(self, name: str, seconds: float) -> None:
        """See L{IPaces.hold}."""
        self._reach()
        until = self._clock.seconds() + seconds
        self._next[name] = max(self._next.get(name, until), until)


def _named(row: Machine) -> tuple[str | None, str | None, str | None, str | None]:
    return row.machine_id, row.volume_id, row.former_machine_id, row.former_volume_id
