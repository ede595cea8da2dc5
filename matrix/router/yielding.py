"""Beside other routers: objecting to their suspends, or giving way to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from matrix.directory import DirectoryUnavailable, StaleRow
from matrix.http import FORBIDDEN
from matrix.machines import LifecycleEvent
from matrix.model import Machine, MachineState
from matrix.router.fleet import Fleet
from matrix.router.routes import Route

IDLE = "idle"
"""The cause of a suspend for want of use; any other is somebody's will."""
BLOCKED = "blocked"
"""The cause of a suspend because the user may not come in."""
ELSEWHERE = "another router"
"""The cause that a route rests for when another router suspends its machine."""

SLACK = 1.0
"""Seconds by which our use must be newer than what the row tells of, to be news: deadlines
and the directory know times of use to fractions of it."""
NEWS_STEP = 0.01
"""Seconds between two looks whether the directory told of something."""
RETURN_WAIT = 0.5
"""Seconds between two attempts to reach a directory that was gone."""
NEWS_WAIT = 0.5
"""Seconds after which a row is read again though nothing was told of it."""
LONG = 5.0
"""Seconds after which a suspend takes long, as with a snapshot before it: then the row is read,
and news are looked for, a tenth as often."""


def objects(route: Route, machine: Machine) -> bool:
    """
    Whether this router must not let another suspend the machine.

    It objects while the other can still be stopped (C{draining}): with requests under way,
    and to an idle suspend also with use that the other could not know of. The claim's row
    holds what was known: every router reads it before it claims.
    """
    if machine.state is not MachineState.DRAINING or machine.suspend_cause == BLOCKED:
        return False
    if route.requests:
        return True
    if machine.suspend_cause != IDLE or route.used_at is None:
        return False
    known = machine.last_active_at
    return known is None or route.used_at > known.timestamp() + SLACK


async def keep(fleet: Fleet, route: Route, machine: Machine) -> None:
    """
    Write down that a machine that another router drains stays awake, and when it was in use
    here: whoever claims it next must know without our objecting again. The other finds that
    its row has changed before it freezes anything.

    @raise StaleRow: the other was faster.
    """
    known = route.row
    cause = known.suspend_cause if known is not None else machine.suspend_cause
    route.row = await fleet.settle(machine, LifecycleEvent.KEEP, suspend_cause=cause)
    await tell_use(fleet, route)


async def tell_use(fleet: Fleet, route: Route) -> None:
    """Tell others when a machine that stays awake was in use here: a claim would not have what
    was known of it written over."""
    if (used_at := route.used_at) is not None:
        await fleet.directory.touch({route.user_id: used_at})


async def give_way(fleet: Fleet, route: Route) -> bool:
    """
    Wait for the outcome of another router's suspend; the route must be cordoned already.
    Whether the machine sleeps, or is not what it was.

    Who comes meanwhile stops the other if that can still be, and else wakes it again. If the
    directory goes away, the machine counts as asleep though it answers: nobody could tell the
    other, which may be about to freeze it, that somebody came.
    """
    drained = False
    long_from = fleet.clock.seconds() + LONG
    claim: Machine | None = None
    while True:
        route.unsure = False
        try:
            machine = claim or await fleet.directory.machine(route.user_id)
            claim = None
            if machine is None or another_life(route, machine):
                route.drain("suspended")
                return True
            if machine.state is MachineState.RUNNING:
                route.row = machine
                return False
            if machine.state is MachineState.DRAINING:
                if route.wanted or not fleet.leased(machine) or objects(route, machine):
                    await keep(fleet, route, machine)
                    return False
            else:
                if not drained:  # beyond recall: what is open here must end properly
                    end_streams(route, machine)
                    drained = True
                if machine.state is not MachineState.SUSPENDING or not fleet.leased(machine):
                    route.row = machine
                    return True
        except StaleRow:
            continue
        except DirectoryUnavailable:
            return True
        ease = 10 if fleet.clock.seconds() > long_from else 1
        used = partial(objects, route, machine)
        await news(fleet.clock, route, NEWS_WAIT * ease, NEWS_STEP * ease, used)
        if machine.state is MachineState.DRAINING and (route.wanted or used()):
            claim = machine  # if that is not the newest row, objecting to it fails


def end_streams(route: Route, machine: Machine) -> None:
    """Another router puts the machine to sleep: what is open here must end before."""
    if machine.suspend_cause == BLOCKED:
        route.drain(BLOCKED, FORBIDDEN)
    else:
        route.drain("suspended")


async def let_go(fleet: Fleet, route: Route) -> None:
    """
    Give up the lease on a machine that the directory's absence has left us with, once it is
    back: other routers must not wait for what nobody does.
    """
    while route.phase == "resting":
        await deferLater(fleet.clock, RETURN_WAIT)
        try:
            machine = await fleet.directory.machine(route.user_id)
            ours = machine is not None and machine.lease_owner == fleet.owner
            if machine is not None and ours and route.phase == "resting":
                await fleet.directory.change(machine, lease_owner=None, lease_expires_at=None)
        except StaleRow:
            return  # somebody is at it
        except DirectoryUnavailable:
            continue
        else:
            return


def another_life(route: Route, machine: Machine) -> bool:
    """Whether the machine was started or woken since this router reached it: its connections
    may be dead though they look alive."""
    known = route.row
    return known is None or (known.boot_id, known.last_wake_at) != (
        machine.boot_id,
        machine.last_wake_at,
    )


async def news(
    clock: IReactorTime,
    route: Route,
    seconds: float,
    step: float = NEWS_STEP,
    else_if: Callable[[], bool] = lambda: False,
) -> None:
    """
    Wait until the directory tells of a change or somebody comes, at most so long.

    @param step: seconds between two looks.
    @param else_if: what ends the waiting too.
    """
    deadline = clock.seconds() + seconds
    while True:
        await deferLater(clock, step)
        if route.unsure or route.wanted or clock.seconds() >= deadline or else_if():
            return
