"""Putting a machine to sleep, unless somebody comes at any moment before it is frozen."""

from __future__ import annotations

from twisted.internet.task import deferLater
from twisted.logger import Logger

from matrix.directory import DirectoryUnavailable, StaleRow
from matrix.http import Backend
from matrix.machines import LifecycleEvent, ProviderError
from matrix.model import Machine, MachineState
from matrix.router.fleet import Fleet
from matrix.router.routes import Route

DRAIN_TIME = 0.1
"""Seconds for the last bytes of ended streams to leave before the machine is frozen."""

_log = Logger()


async def freeze(fleet: Fleet, route: Route, backend: Backend, cause: str) -> bool:
    """
    Suspend a route's machine; its route must be cordoned already. Whether it sleeps now.

    @raise StaleRow, DirectoryUnavailable, ProviderError: it could not be done; it runs on.
    """
    used_at = backend.used_at
    machine = route.row
    if machine is None:
        return False
    if machine.state is not MachineState.RUNNING:  # an earlier rest was broken off half-way
        machine = route.row = await fleet.advance(machine, LifecycleEvent.KEEP)
    machine = route.row = await fleet.advance(machine, LifecycleEvent.IDLE, **fleet.claim())
    if route.wanted or backend.requests or backend.used_at != used_at:
        return await _keep(fleet, route, machine)
    backend.drain("suspended")
    await deferLater(fleet.clock, DRAIN_TIME)
    machine = route.row = await fleet.advance(machine, LifecycleEvent.DRAINED)
    if route.wanted:
        return await _keep(fleet, route, machine)
    try:
        await fleet.provider.suspend(machine)
    except ProviderError:
        await _keep(fleet, route, machine)
        raise
    await _note_sleep(fleet, machine, cause)
    return True


async def put_away(fleet: Fleet, machine: Machine, cause: str) -> None:
    """Suspend a machine that nobody may use, so that it has no route."""
    try:
        machine = await fleet.advance(machine, LifecycleEvent.IDLE, **fleet.claim())
        machine = await fleet.advance(machine, LifecycleEvent.DRAINED)
        await fleet.provider.suspend(machine)
    except (StaleRow, DirectoryUnavailable, ProviderError) as error:
        # Another router may be at it; what is left undone the reconciler finds.
        _log.warn("{user} is not put away: {error}", user=machine.user_id, error=error)
    else:
        await _note_sleep(fleet, machine, cause)


async def _keep(fleet: Fleet, route: Route, machine: Machine) -> bool:
    route.row = await fleet.settle(machine, LifecycleEvent.KEEP)
    return False


async def _note_sleep(fleet: Fleet, machine: Machine, cause: str) -> None:
    """Write down that a machine is frozen; frozen it is even if that cannot be done now."""
    try:
        await fleet.settle(machine, LifecycleEvent.SUSPENDED, suspend_cause=cause)
        await fleet.directory.record(machine.user_id, "suspend", cause)
    except (StaleRow, DirectoryUnavailable) as error:
        _log.warn("{user} sleeps, unrecorded: {error}", user=machine.user_id, error=error)
