"""Hearing from Fly what becomes of a machine that is coming up, with few calls."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from matrix.machines._fly_errors import FlyError
from matrix.machines._fly_sight import Sight, identified
from matrix.machines._fly_types import FlyMachine
from matrix.machines._turns import shielded
from matrix.model import Machine

WAIT_SECONDS = 25.0
"""For one wait: Fly takes one to sixty, and what the network lost must not cost minutes."""

MOVED_AFTER = 1.5
"""Seconds after which a machine that runs and does not answer is looked at: it may have been
moved, and be at another address than was read as it was started."""

AGAIN = 1.0
"""Seconds after a wait that Fly refused."""


async def until_up(sight: Sight, clock: IReactorTime, machine: Machine) -> bool:
    """
    Wait until it runs, or has failed, or for long. Whether Fly said that it runs. Who leaves
    leaves the call under way: it ends within moments, and its connection is used again.
    """
    return await shielded(Deferred.fromCoroutine(_reaches(sight, clock, machine, "started,failed")))


async def until_down(sight: Sight, clock: IReactorTime, machine: Machine) -> None:
    """Wait until it may run no more, or for long."""
    states = "stopped,failed,destroyed" if identified(machine) in sight.versions else "failed"
    await _reaches(sight, clock, machine, states)


async def _reaches(sight: Sight, clock: IReactorTime, machine: Machine, states: str) -> bool:
    """Whether it does, and is started then."""
    machine_id = identified(machine)
    known = FlyMachine(id=machine_id, state="", instance_id=sight.versions.get(machine_id, ""))
    try:
        reached = await sight.client.wait(sight.app(machine), known, states, WAIT_SECONDS)
    except FlyError as error:
        if error.reason != "not-reached":
            await deferLater(clock, error.retry_after or AGAIN)
        return False
    return reached.state == "started"
