"""The schedule at work: sees that machines in use have their snapshots taken in time."""

from __future__ import annotations

from typing import TypeGuard

from twisted.internet.interfaces import IReactorTime

from matrix.metrics import Registry, series
from matrix.model import Machine, MachineState, Snapshot, UserId
from matrix.router.fleet import Fleet
from matrix.router.routes import Route, RouteTable
from matrix.router.snapshots.run import LEASE
from matrix.router.snapshots.taker import INTERVAL, Taker

LONGEST_ROUND = 5.0
"""Seconds between two looks at what is due: no later than that it is begun."""

ADOPT_INTERVAL = 30.0
"""Seconds between two looks for what routers that ended have left: their leases last as long."""

ADOPT_LIMIT = 10
"""Of those so many at a time; other processes take their share."""

ENROLL_AGAIN = 300.0
"""Seconds after which it is made sure again that a machine in use has a time."""

ORPHANED = "its router ended before it was done, and the machine sleeps"


class Timetable:
    """Goes through the machines that this process has awake."""

    def __init__(
        self,
        fleet: Fleet,
        routes: RouteTable,
        taker: Taker,
        registry: Registry,
        interval: float,
    ) -> None:
        """@param interval: seconds between two snapshots of a machine in use."""
        self._fleet = fleet
        self._clock: IReactorTime = fleet.clock
        self._routes = routes
        self._taker = taker
        self._interval = interval
        self._records = fleet.directory.snapshots
        self._enrolled: dict[UserId, tuple[object, float]] = {}
        self._failing = registry.gauge(series.SNAPSHOTS_FAILING)
        registry.watch(series.SNAPSHOTS_LATE_SECONDS, self._late)
        self.seconds = min(LONGEST_ROUND, interval / 4)
        """Between two rounds."""

    async def go(self) -> None:
        """
        Enroll who woke, and begin what is due, as far as there is room.

        @raise matrix.directory.DirectoryUnavailable: nothing can be known now; the next round
            catches up.
        """
        awake = {route.user_id: route for route in self._routes if _is_awake(route, self._taker)}
        for user_id in self._enrolled.keys() - awake.keys():
            del self._enrolled[user_id]
            self._taker.book.forget(user_id)
        await self._enroll(awake)
        if not self._taker.room:
            return
        due = [user_id for user_id in awake if self._may_be_due(user_id)]
        claimed = await self._records.claim(
            due, INTERVAL, self._fleet.owner, LEASE, self._taker.room
        )
        for snapshot in claimed:
            await self._begin(snapshot, awake[snapshot.user_id])

    async def adopt(self) -> None:
        """Close what routers that ended have begun, and look how many users are in trouble."""
        for snapshot in await self._records.take_over(self._fleet.owner, LEASE, ADOPT_LIMIT):
            if self._taker.holds(snapshot.user_id):
                continue  # it is ours, and was prolonged too late
            machine = await self._fleet.directory.machine(snapshot.user_id)
            if _answers(machine):
                self._taker.look_after(snapshot, machine)
            else:
                retry = self._taker.book.first()
                await self._records.fail(snapshot, ORPHANED, min(retry, self._interval))
        self._failing.value = await self._records.failing()

    async def _enroll(self, awake: dict[UserId, Route]) -> None:
        now, due_in = self._clock.seconds(), {}
        for user_id, route in awake.items():
            life, until = self._enrolled.get(user_id, (None, 0.0))
            if life != _life(route) or now >= until:
                due_in[user_id] = self._taker.book.first()
        if due_in:
            await self._records.enroll(due_in)
            for user_id in due_in:
                if user_id in awake:
                    self._enrolled[user_id] = _life(awake[user_id]), now + ENROLL_AGAIN

    async def _begin(self, snapshot: Snapshot, route: Route) -> None:
        machine = route.row
        if route.backend is None or not _answers(machine):
            # It is going to sleep, and who sees to that takes one; else it is due when it wakes.
            await self._records.drop(snapshot, self._taker.book.first())
        elif self._taker.holds(snapshot.user_id):
            await self._records.drop(snapshot, self._interval)  # one was finished this moment
        else:
            self._taker.begin(snapshot, machine)

    def _may_be_due(self, user_id: UserId) -> bool:
        held = self._taker.holds(user_id)
        return not held and self._taker.book.next.get(user_id, 0.0) <= self._clock.seconds()

    def _late(self) -> float:
        times = self._taker.book.next.values()
        return max(0.0, self._clock.seconds() - min(times)) if times else 0.0


def _is_awake(route: Route, taker: Taker) -> bool:
    row = route.row
    return route.backend is not None and row is not None and not taker.book.is_none_of_ours(row)


def _life(route: Route) -> object:
    """Changes whenever the machine is woken."""
    row = route.row
    return None if row is None else (row.boot_id, row.last_wake_at)


def _answers(machine: Machine | None) -> TypeGuard[Machine]:
    return (
        machine is not None
        and machine.address is not None
        and machine.state in (MachineState.RUNNING, MachineState.DRAINING)
    )
