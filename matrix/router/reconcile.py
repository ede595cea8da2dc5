"""Reconcile: what the directory says of a machine against what the provider sees of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from twisted.logger import Logger

from matrix.directory import StaleRow
from matrix.machines import LifecycleEvent, Observed, ProviderError, next_state
from matrix.metrics import Registry, series
from matrix.model import Machine, MachineState, UserId
from matrix.router.fleet import Fleet
from matrix.router.resting import put_away
from matrix.router.routes import RouteTable
from matrix.router.wake import Waker

PAGE = 500
"""Rows read at once."""
UNHEARD = 30.0
"""Seconds by which use may be older in the directory than it is: each router tells of it every
fifteen, or a little later."""
UNANSWERING = "unanswering"
"""The cause of a suspend because nobody used the machine for long, nor can."""

_S = MachineState
_IN_TRANSITION = frozenset({_S.STARTING, _S.DRAINING, _S.SUSPENDING})
_ENDING = frozenset({_S.DESTROYING, _S.DESTROYED})
_log = Logger()

_Page = Callable[[UserId | None], Awaitable[Sequence[Machine]]]


class Reconciler:
    """Heals what a router that died left behind, and notices what nobody reported."""

    def __init__(
        self, fleet: Fleet, waker: Waker, routes: RouteTable, registry: Registry, idle: float
    ) -> None:
        """@param idle: seconds without use after which a machine sleeps."""
        self._fleet = fleet
        self._directory = fleet.directory
        self._provider = fleet.provider
        self._waker = waker
        self._routes = routes
        self._registry = registry
        self._idle = idle

    async def run(self) -> None:
        """
        One pass over what may have been left behind: machines on their way up or down, and
        those that run. Of a provider that can be surveyed (L{matrix.router.survey}) only those
        that should have been put to sleep, since nobody seems to watch them.
        """
        name, roll = self._provider.name, self._directory.roll
        if self._provider.survey() is None:
            states = _IN_TRANSITION | {_S.RUNNING}
            await self._each(lambda after: roll.in_states(name, states, after, PAGE), self._check)
            return
        await self._each(
            lambda after: roll.in_states(name, _IN_TRANSITION, after, PAGE), self._check
        )
        if not self._provider.sleeps:
            return
        idle = self._idle + UNHEARD
        await self._each(lambda after: roll.overdue(name, idle, after, PAGE), self._rest)

    async def look(self, user_id: UserId) -> None:
        """See whether a row is wrong, and correct it, unless somebody has its machine in hand."""
        machine = await self._directory.machine(user_id)
        if machine is None or machine.state in _ENDING or self._fleet.leased(machine):
            return
        if machine.state is _S.FAILED:
            await self._guarded(machine, self._look_at_failed)
        else:
            await self._check(machine)

    async def _each(self, read: _Page, see: Callable[[Machine], Awaitable[None]]) -> None:
        after: UserId | None = None
        while True:
            page = await read(after)
            for machine in page:
                await see(machine)
            if len(page) < PAGE:
                return
            after = page[-1].user_id

    async def _check(self, machine: Machine) -> None:
        if machine.machine_id is None:
            return
        if machine.state in _IN_TRANSITION and self._fleet.leased(machine):
            return
        await self._guarded(machine, self._compare)

    async def _guarded(
        self, machine: Machine, work: Callable[[Machine, Observed], Awaitable[None]]
    ) -> None:
        """Do something with what the provider sees of a machine."""
        try:
            await work(machine, await self._provider.inspect(machine))
        except StaleRow:
            pass  # somebody is at it: the next pass sees what came of it
        except ProviderError as error:
            _log.warn("cannot inspect {user}: {error}", user=machine.user_id, error=error)

    async def _compare(self, machine: Machine, observed: Observed) -> None:
        if observed.state is not machine.state:
            await self._correct(machine, observed)
        if observed.state is _S.RUNNING:
            await self._waker.adopt(machine.user_id)

    async def _look_at_failed(self, machine: Machine, observed: Observed) -> None:
        """One that rests says why it does; one that runs must answer, or it costs for nothing."""
        if observed.state is _S.LOST:
            await self._correct(machine, observed)
        elif observed.state is _S.RUNNING:
            backend = await self._fleet.reach(replace(machine, address=observed.address))
            if backend is None:
                await self._stop(machine)
            else:
                backend.close()
                await self._compare(machine, observed)

    async def _stop(self, machine: Machine) -> None:
        """End what failed and runs all the same; its row goes on saying why it failed."""
        machine = await self._directory.change(machine, **self._fleet.claim())
        try:
            await self._provider.stop(machine)
        finally:
            await self._directory.change(machine, lease_owner=None, lease_expires_at=None)

    async def _rest(self, machine: Machine) -> None:
        """Put to sleep what ran on unused. Whoever uses it all the same objects to it."""
        route = self._routes.get(machine.user_id)
        if route is not None and route.backend is not None:
            return  # it is watched here
        await self._guarded(machine, self._rest_if_it_runs)

    async def _rest_if_it_runs(self, machine: Machine, observed: Observed) -> None:
        await self._compare(machine, observed)
        if observed.state is not _S.RUNNING:
            return
        route = self._routes.get(machine.user_id)
        if route is not None and route.backend is not None:
            route.used_elsewhere = 0.0  # long ago: the next look at idle machines sees to it
        elif route is None or route.phase == "resting":
            present = await self._directory.machine(machine.user_id)
            if present is None or present.state is not _S.RUNNING:
                return
            if not await self._fleet.leases.hold(present):
                await put_away(self._fleet, present, UNANSWERING)

    async def _correct(self, machine: Machine, observed: Observed) -> None:
        state = next_state(machine.state, _event(machine.state, observed.state))
        detail = {"was": machine.state.value, "is": state.value}
        fields: dict[str, object] = {"state": state, "lease_owner": None, "lease_expires_at": None}
        if observed.address is not None:
            fields |= {"address": observed.address, "boot_id": observed.boot_id}
        await self._directory.change(machine, **fields)
        await self._directory.record(machine.user_id, "reconciled", "router", detail)
        self._registry.counter(series.RECONCILED, machine.state.value, state.value).value += 1
        _log.info("{user} is {now}, not {was}", user=machine.user_id, now=state, was=machine.state)


def _event(said: MachineState, seen: MachineState) -> LifecycleEvent:
    """What must have happened between what the row says and what the provider sees."""
    if seen is MachineState.RUNNING:
        return LifecycleEvent.WOKE if said is MachineState.STARTING else LifecycleEvent.KEEP
    return {
        MachineState.SUSPENDED: LifecycleEvent.FOUND_SUSPENDED,
        MachineState.STOPPED: LifecycleEvent.DIED,
    }.get(seen, LifecycleEvent.GONE)
