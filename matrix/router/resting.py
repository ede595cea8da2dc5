"""Putting a machine to sleep, unless somebody comes at any moment before it is frozen."""

from __future__ import annotations

from twisted.internet.task import deferLater

from matrix.http import Backend
from matrix.machines import LifecycleEvent, ProviderError
from matrix.model import Machine
from matrix.router.fleet import Fleet
from matrix.router.routes import Route

DRAIN_TIME = 0.1
"""Seconds for the last bytes of ended streams to leave before the machine is frozen."""


async def freeze(fleet: Fleet, route: Route, backend: Backend, cause: str) -> bool:
    """
    Suspend a route's machine; its route must be cordoned already. Whether it sleeps now.

    @raise StaleRow, DirectoryUnavailable, ProviderError: it could not be done; it runs on.
    """
    used_at = backend.used_at
    machine = route.row
    if machine is None:
        return False
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
    route.row = await fleet.settle(machine, LifecycleEvent.SUSPENDED, suspend_cause=cause)
    await fleet.directory.record(route.user_id, "suspend", cause)
    return True


async def _keep(fleet: Fleet, route: Route, machine: Machine) -> bool:
    route.row = await fleet.settle(machine, LifecycleEvent.KEEP)
    return False
