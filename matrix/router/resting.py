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
from matrix.router.yielding import IDLE

HEARING = 0.1
"""Seconds for other routers to object before anything is ended: a notification takes a few
milliseconds, and a router busier than that wakes what it still needs."""
HEARING_STEPS = 5
"""Looks within that time whether anybody came to this router."""
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
    before = machine.suspend_cause
    machine = route.row = await fleet.advance(
        machine, LifecycleEvent.IDLE, suspend_cause=cause, **fleet.claim()
    )
    seen = route.seen_active
    if cause == IDLE and seen is not None and machine.last_active_at != seen:
        return await _keep(fleet, route, machine, before)  # others used it since we asked
    for _ in range(HEARING_STEPS):
        if route.wanted or route.requests or backend.used_at != used_at:
            return await _keep(fleet, route, machine, before)
        await deferLater(fleet.clock, HEARING / HEARING_STEPS)
    if backend.used_at != used_at:
        return await _keep(fleet, route, machine, before)
    # Beyond this row others do not object any more, nor end their streams before it.
    machine = route.row = await fleet.advance(machine, LifecycleEvent.DRAINED)
    route.drain("suspended")
    await deferLater(fleet.clock, DRAIN_TIME)
    if route.wanted:
        return await _keep(fleet, route, machine, before)
    try:
        await fleet.provider.suspend(machine)
    except ProviderError:
        await _keep(fleet, route, machine, before)
        raise
    await _note_sleep(fleet, machine, cause)
    return True


async def put_away(fleet: Fleet, machine: Machine, cause: str) -> None:
    """Suspend a machine that nobody may use, so that it has no route."""
    try:
        machine = await fleet.advance(
            machine, LifecycleEvent.IDLE, suspend_cause=cause, **fleet.claim()
        )
        machine = await fleet.advance(machine, LifecycleEvent.DRAINED)
        await fleet.provider.suspend(machine)
    except StaleRow:
        _log.debug("{user} is put away by another router", user=machine.user_id)
    except (DirectoryUnavailable, ProviderError) as error:
        # What is left undone the reconciler finds.
        _log.warn("{user} is not put away: {error}", user=machine.user_id, error=error)
    else:
        await _note_sleep(fleet, machine, cause)


async def _keep(fleet: Fleet, route: Route, machine: Machine, before: str | None) -> bool:
    """@param before: what the machine last slept for."""
    route.row = await fleet.settle(machine, LifecycleEvent.KEEP, suspend_cause=before)
    return False


async def _note_sleep(fleet: Fleet, machine: Machine, cause: str) -> None:
    """Write down that a machine is frozen; frozen it is even if that cannot be done now."""
    try:
        await fleet.settle(machine, LifecycleEvent.SUSPENDED, suspend_cause=cause)
        await fleet.directory.record(machine.user_id, "suspend", cause)
    except (StaleRow, DirectoryUnavailable) as error:
        _log.warn("{user} sleeps, unrecorded: {error}", user=machine.user_id, error=error)
