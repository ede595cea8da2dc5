"""Everything of ours at Fly, from the listings of the organization: a thousand to a call."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from uuid import UUID

from matrix.machines._fly import FlyClient
from matrix.machines._fly_errors import FlyError
from matrix.machines._fly_patience import Patience
from matrix.machines._fly_plans import STOCK_KEY, USER_KEY, FlyPlans
from matrix.machines._fly_rates import Priority
from matrix.machines._fly_types import FlyMachine, FlyVolume
from matrix.machines.interfaces import Sighted, SurveyPage
from matrix.model import MachineState, Stray, UserId, user_id

_SETTLED: Mapping[str, MachineState] = {
    "started": MachineState.RUNNING,
    "suspended": MachineState.SUSPENDED,
    "created": MachineState.STOPPED,
    "stopped": MachineState.STOPPED,
    "failed": MachineState.STOPPED,
}
"""All others are on their way."""

_PREFIXES = ("u-", "u_", "s-", "s_")
"""Of the names of users' machines and volumes, and of those in stock."""

_NAME_BYTES = 26
"""Characters of a user id in base 32, without its padding."""


async def survey(
    client: FlyClient, plans: FlyPlans, patience: Callable[[], Patience]
) -> AsyncIterator[SurveyPage]:
    """
    Pages of all machines, then of all volumes. What changes meanwhile may be in two of them, as
    it was before and after; what is made meanwhile may be in none.

    @param patience: makes that for one page.
    @raise FlyError: Fly does not answer: nothing is known of the rest.
    """
    org, app = plans.place.org, plans.place.app
    for listed in (client.org_machines, client.org_volumes):
        cursor: str | None = None
        while True:
            at = cursor
            page = await patience().of(lambda: listed(org, at))  # noqa: B023 -- awaited at once
            machines = (_machine(found, app) for found in page.machines)
            volumes = (_volume(found, app) for found in page.volumes if not found.is_gone)
            found = tuple(one for one in (*machines, *volumes) if one is not None)
            yield SurveyPage(found, tuple(page.error_regions or ()))
            if not page.next_cursor or page.next_cursor == cursor:
                break
            cursor = page.next_cursor


async def discard(client: FlyClient, stray: Stray, patience: Patience) -> bool:
    """
    Delete it if it still is as it was noted. Whether it is gone, or about to be.

    @raise FlyError: Fly refused.
    """
    try:
        if stray.kind == "volume":
            volume = await patience.of(lambda: client.volume(stray.app, stray.id))
            if volume.name != stray.name or volume.attached_machine_id is not None:
                return volume.is_gone
            await patience.of(lambda: client.delete_volume(stray.app, stray.id))
        else:
            machine = await patience.of(
                lambda: client.machine(stray.app, stray.id, Priority.HOUSEKEEPING)
            )
            if _owner(machine) != stray.user_id:
                return machine.is_gone
            await patience.of(lambda: client.destroy(stray.app, stray.id))
    except FlyError as error:
        if error.reason != "not-found":
            raise
    return True


def _machine(found: FlyMachine, app: str) -> Sighted | None:
    """C{None}: it is gone, or another's."""
    owner = _owner(found)
    if found.is_gone or (owner is None and found.app_name != app):
        return None
    return Sighted(
        id=found.id,
        kind="machine",
        app=found.app_name,
        name=found.name,
        region=found.region,
        user_id=owner,
        ours=owner is not None and found.app_name == app,
        said=found.state,
        state=_SETTLED.get(found.state),
        since=_instant(found.updated_at),
    )


def _volume(found: FlyVolume, app: str) -> Sighted | None:
    owner = named_after(found.name)
    if found.app_name != app:
        return None
    return Sighted(
        id=found.id,
        kind="volume",
        app=found.app_name,
        name=found.name,
        region=found.region,
        user_id=owner,
        ours=owner is not None,
        said=found.state,
        attached=found.attached_machine_id,
        since=found.created_at,
    )


def named_after(name: str) -> UserId | None:
    """The user, or the place in stock, after whom a machine or volume is named, if it is."""
    text = name[2:].upper()
    if not name.startswith(_PREFIXES) or len(text) != _NAME_BYTES:
        return None
    try:
        return UserId(str(UUID(bytes=base64.b32decode(text + "=" * (-len(text) % 8)))))
    except ValueError:
        return None


def _owner(found: FlyMachine) -> UserId | None:
    """Whose it is, be it a place's in stock; C{None} if it does not say so."""
    text = found.metadata.get(USER_KEY) or found.metadata.get(STOCK_KEY)
    try:
        return None if text is None else user_id(text)
    except ValueError:
        return None


def _instant(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
