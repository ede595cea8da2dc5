"""Heeding others: what becomes of a route when the directory tells of a change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from twisted.internet.task import deferLater

from matrix.directory import DirectoryUnavailable, StaleRow
from matrix.model import Machine, MachineState, UserId, UserState
from matrix.router.fleet import Fleet
from matrix.router.resting import put_away
from matrix.router.routes import Route, RouteTable
from matrix.router.yielding import (
    BLOCKED,
    ELSEWHERE,
    NEWS_WAIT,
    another_life,
    end_streams,
    keep,
    news,
    objects,
)

LOOK_INTERVAL = 1.0
"""Seconds between two attempts to hear of a change that the directory told of."""

_RESTING = frozenset({MachineState.DRAINING, MachineState.SUSPENDING, MachineState.SUSPENDED})


class Heed:
    """Sees to what the directory tells of, while machines are awake here or requests linger."""

    def __init__(
        self,
        fleet: Fleet,
        routes: RouteTable,
        run: Callable[[Coroutine[Any, Any, None]], None],
        rescue: Callable[[Route], None],
    ) -> None:
        """
        @param run: lets something go on in the background.
        @param rescue: wakes a machine again that was put to sleep under requests of ours.
        """
        self._fleet = fleet
        self._routes = routes
        self._run = run
        self._rescue = rescue

    def changed(self, user_id: UserId | None) -> None:
        """The directory tells that something changed; C{None}: perhaps anything."""
        routes = [self._routes.get(user_id)] if user_id is not None else list(self._routes)
        for route in routes:
            if route is not None:
                route.unsure = True
                self.look_again(route)

    def look_again(self, route: Route) -> None:
        """See what the directory told of, now or while the machine was on its way."""
        if route.unsure and not route.looking and self._concern(route) is not None:
            route.looking = True
            self._run(self._look(route))

    def _concern(self, route: Route) -> Callable[[Route], Awaitable[None]] | None:
        """What a change means for the route; C{None}: nothing, as for most of them."""
        if route.phase == "awake":
            return self.refresh
        return self._defend if route.phase == "resting" and route.former else None

    async def _look(self, route: Route) -> None:
        try:
            while route.unsure and (see := self._concern(route)) is not None:
                route.unsure = False
                try:
                    await see(route)
                except DirectoryUnavailable:
                    route.unsure = True
                    await deferLater(self._fleet.clock, LOOK_INTERVAL)
        finally:
            route.looking = False

    async def refresh(self, route: Route) -> None:
        """
        Something changed in the directory: see whether the route still holds.

        @raise DirectoryUnavailable: it cannot be told now.
        """
        if route.phase != "awake":
            route.unsure = True
            return
        user = await self._fleet.directory.user(route.user_id)
        machine = await self._fleet.directory.machine(route.user_id)
        backend, known = route.backend, route.row
        if backend is None or route.phase != "awake":
            route.unsure = True
            return
        if user is None or user.state is not UserState.ACTIVE:
            route.machine.lost()  # what is under way is ended by matrix.router.rights
            if machine is not None and machine.state is MachineState.RUNNING:
                await put_away(self._fleet, machine, BLOCKED)
            return
        route.idle_timeout = user.idle_timeout
        if machine is None or known is None:
            route.machine.lost()
        elif machine.generation < known.generation:
            return  # it was read before what we know was written
        elif machine.boot_id != known.boot_id:
            route.machine.lost()
        elif machine.state is MachineState.RUNNING:
            if another_life(route, machine):
                route.machine.lost()
            else:
                route.row = machine
        elif machine.lease_owner == self._fleet.owner or objects(route, machine):
            await self._keep(route, machine)
        elif machine.state in _RESTING:
            route.machine.rest(ELSEWHERE)
        else:
            route.machine.lost()

    async def _keep(self, route: Route, machine: Machine) -> None:
        """Write down that a machine is awake: our rest was broken off half-way, or another
        router would put to sleep what is in use."""
        try:
            await keep(self._fleet, route, machine)
        except StaleRow:
            route.unsure = True

    async def _defend(self, route: Route) -> None:
        """Requests or streams are under way on connections of before: others must not end the
        ones, nor the others while they are in use; else these must end with the machine."""
        fleet = self._fleet
        machine = await fleet.directory.machine(route.user_id)
        if machine is None or route.phase != "resting" or not route.backends():
            return
        if objects(route, machine):
            await self._keep(route, machine)
        elif machine.state is MachineState.DRAINING:
            used = partial(objects, route, machine)
            await news(fleet.clock, route, NEWS_WAIT, else_if=used)
            route.unsure = True
        elif machine.state in _RESTING:
            end_streams(route, machine)
            if machine.state is MachineState.SUSPENDED and route.requests:
                self._rescue(route)
