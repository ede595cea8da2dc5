"""Where machines are: made, or taken from stock; started where they are, or moved elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from twisted.logger import Logger

from matrix.machines import ProviderError, Started, Stranded
from matrix.model import Machine, MachineState, UserId
from matrix.router.fleet import Fleet, Row
from matrix.router.rescue import Refusal, Rescue, judge

MOVED = "moved"
"""The kind of event that tells of a move. Its cause is one of L{matrix.router.fleet.MOVES}."""

REPOSITORY = "MATRIX_RESTIC_REPOSITORY"
"""A machine that is told of one restores what is in it when it boots with nothing."""

_log = Logger()


async def made(fleet: Fleet, row: Row) -> str:
    """
    Make a machine, or take up what was begun. Its machine id.

    @raise ProviderError: it could not be made.
    """
    environment = fleet.environment(row.machine)
    if row.machine.provision_step is None and row.machine.machine_id is None:
        await fleet.stock(row)
    try:
        return str(await fleet.provider.provision(row.machine, environment, row.keep))
    except Stranded as error:
        return await _move(fleet, row, error)


async def started(fleet: Fleet, row: Row, prior: MachineState) -> Started:
    """
    Start a machine: where it is or, if that cannot be, somewhere else.

    @param prior: the state that it was said to be in before it was wanted.
    @raise ProviderError: it could not be started.
    """
    environment = fleet.environment(row.machine)
    try:
        found: Started = await fleet.provider.start(replace(row.machine, state=prior), environment)
    except Stranded as error:
        await _move(fleet, row, error)
        fresh = replace(row.machine, state=MachineState.PROVISIONING)
        found = await fleet.provider.start(fresh, environment)
    if row.machine.stranded_at is not None:
        await row.keep(stranded_at=None)
    return found


def answered(machine: Machine) -> dict[str, object]:
    """What to write with the row of a machine that answers, before any request goes to it."""
    return {"on_trial": False} if machine.on_trial else {}


async def _move(fleet: Fleet, row: Row, stranded: Stranded) -> str:
    """
    Make it elsewhere: with a copy of its data or, if they cannot be had, from its snapshot.

    @raise ProviderError: that cannot be, or must not be yet.
    """
    provider, before = fleet.provider, row.machine
    environment = fleet.environment(before)
    if stranded.can_copy:
        try:
            machine_id = str(await provider.relocate(before, environment, row.keep, fresh=False))
        except Stranded as refusal:
            if refusal.can_copy:
                raise
            stranded = refusal
        else:
            await _note(fleet, row, before, "no-room", {"why": str(stranded)})
            return machine_id
    rescue = await _rescue(fleet, row, stranded)
    machine_id = str(await provider.relocate(row.machine, environment, row.keep, fresh=True))
    detail = {
        "why": str(stranded),
        "snapshot": rescue.snapshot.restic_id,
        "loses_s": round(rescue.loses_s, 1),
    }
    await _note(fleet, row, before, "host-down", detail)
    return machine_id


async def _rescue(fleet: Fleet, row: Row, stranded: Stranded) -> Rescue:
    """
    How a machine may begin anew.

    @raise ProviderError: it may not, or not yet.
    """
    now, user_id = datetime.now(UTC), row.machine.user_id
    if row.machine.stranded_at is None:
        await row.keep(stranded_at=now)
    newest = await fleet.directory.snapshots.newest(user_id)
    if newest is not None and REPOSITORY not in fleet.environment(row.machine):
        newest = None  # nobody would restore it
    judged = judge(row.machine, newest, now)
    if isinstance(judged, Refusal):
        raise ProviderError(
            f"{stranded}; {judged.why}", retry_after=stranded.retry_after
        ) from stranded
    return judged


async def _note(
    fleet: Fleet, row: Row, before: Machine, cause: str, detail: Mapping[str, object]
) -> None:
    user_id: UserId = row.machine.user_id
    places = {"from": before.region, "to": row.machine.region}
    _log.warn("{user} is moved: {cause} {detail}", user=user_id, cause=cause, detail=detail)
    fleet.moves[cause] += 1
    await fleet.directory.record(user_id, MOVED, cause, {**places, **detail})
