"""A user's volume on Fly: found, made, copied or thrown away, each of it once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from twisted.logger import Logger

from matrix.machines import _fly_steps as steps
from matrix.machines._fly import FlyClient
from matrix.machines._fly_errors import FlyError, Verdict
from matrix.machines._fly_patience import Patience
from matrix.machines._fly_plans import Wanted
from matrix.machines._fly_rates import Priority
from matrix.machines._fly_types import FlyVolume
from matrix.machines.interfaces import Keep, ProviderError, Stranded
from matrix.model import Machine

IN_FLIGHT = 10.0
"""Seconds for which a call may still be about to be carried out whose caller is gone."""
EXPORT_PAUSE = 0.5
"""Seconds between two looks whether a copy can be used yet, which it soon can (facts/fly.md
section 7)."""

UNUSABLE = frozenset({"creating", "enabling_remote_export", "restoring"})
"""States of a new volume in which no machine can have it yet."""

_log = Logger()


class Ledger:
    """A row that is worked on: what it says now, and how that is changed."""

    def __init__(self, row: Machine, keep: Keep, app: str) -> None:
        self.row = row
        self.app = app
        """The app that everything is in."""
        self._keep = keep

    async def write(self, **fields: object) -> None:
        """Note something."""
        self.row = await self._keep(**fields)


class Volumes:
    """What is done about one row's volume."""

    def __init__(
        self,
        client: FlyClient,
        patience: Patience,
        ledger: Ledger,
        org: str,
        priority: Priority = Priority.WAKE,
    ) -> None:
        """@param org: where the app is made if there is none."""
        self._client = client
        self._patience = patience
        self._ledger = ledger
        self._org = org
        self._priority = priority

    async def present(self, wanted: Wanted) -> FlyVolume | None:
        """The row's volume, or one of its name, if there is one."""
        row = self._ledger.row
        if row.volume_id is not None:
            found = await self.look(row.volume_id)
            if found is not None:
                return found
            if row.provision_step in (steps.MADE, steps.ANEW):
                _log.error("{user}: volume {id} is gone", user=row.user_id, id=row.volume_id)
        return await self._by_name(wanted)

    async def look(self, volume_id: str) -> FlyVolume | None:
        """A volume, if it is there."""
        client, app = self._client, self._ledger.app
        try:
            found = await self._patience.of(lambda: client.volume(app, volume_id))
        except FlyError as error:
            if error.reason != "not-found":
                raise
            return None
        return None if found.is_gone else found

    async def _by_name(self, wanted: Wanted) -> FlyVolume | None:
        """
        Names of volumes need not be unique, so it has to be certain that none is on its way.
        """
        found = await self._listed(wanted)
        seconds = steps.in_flight(self._ledger.row.provision_step, IN_FLIGHT)
        if found is None and seconds > 0:
            await self._patience.sleep(seconds)
            found = await self._listed(wanted)
        if found is not None:
            row = self._ledger.row
            made = steps.COPY if steps.copies(row) else steps.EMPTY
            step = made if steps.was_made_since(row.provision_step, found) else steps.FOUND
            await self._ledger.write(volume_id=found.id, region=found.region, provision_step=step)
        return found

    async def _listed(self, wanted: Wanted) -> FlyVolume | None:
        row = self._ledger.row
        try:
            volumes = await self._patience.of(lambda: self._client.volumes(self._ledger.app))
        except FlyError as error:
            if error.reason == "not-found":
                return None  # not even the app
            raise
        others = [one for one in volumes if one.id != row.former_volume_id]
        if row.on_trial:  # what is older is no part of the move
            others = [one for one in others if steps.was_made_since(row.provision_step, one)]
        return _named(others, wanted.volume_name)

    async def make(self, wanted: Wanted) -> FlyVolume:
        """
        A new volume: an empty one, or a copy of the former one.

        @raise FlyError: it could not be made.
        @raise Stranded: there is nothing that could be copied.
        """
        row = self._ledger.row
        copies = steps.copies(row)
        source = row.former_volume_id if copies else None
        kind, made_step = (steps.COPYING, steps.COPY) if copies else (steps.BEGUN, steps.EMPTY)

        async def begin() -> None:
            # The turn to ask may come late: only from now on may something be on its way.
            app = self._ledger.app
            await self._ledger.write(app=app, provision_step=steps.since_now(kind))

        while True:
            try:
                made = await self._patience.of(lambda: self._create(wanted.volume(source), begin))
            except FlyError as error:
                if copies and error.reason == "volume-not-found":
                    raise Stranded(str(error), can_copy=False) from error
                if error.verdict is not Verdict.AMBIGUOUS:
                    raise
                found = await self._by_name(wanted)
                if found is not None:
                    return found
                await self._patience.pause(error)
            else:
                await self._ledger.write(
                    volume_id=made.id, region=made.region, provision_step=made_step
                )
                return made

    async def _create(
        self, request: Mapping[str, Any], begin: Callable[[], Awaitable[None]]
    ) -> FlyVolume:
        client, app = self._client, self._ledger.app
        try:
            return await client.create_volume(app, request, self._priority, begin)
        except FlyError as error:
            if error.reason != "not-found":
                raise
        # A volume is the first thing in an app; so it is the app that is not found.
        try:
            await client.create_app(app, self._org)
        except FlyError as error:
            if error.reason != "app-name-taken":  # by us, for another user, a moment ago
                raise
        return await client.create_volume(app, request, self._priority, begin)

    async def usable(self, volume: FlyVolume) -> None:
        """
        Wait until a machine can have a copy.

        @raise ProviderError: not in time, or it is gone.
        """
        if self._ledger.row.provision_step != steps.COPY:
            return  # an empty one can be had at once
        found: FlyVolume | None = volume
        while found is not None and found.state in UNUSABLE:
            self._patience.check(f"volume {volume.id} is still {found.state} at Fly")
            await self._patience.sleep(EXPORT_PAUSE)
            found = await self.look(volume.id)
        if found is None:
            raise ProviderError(f"volume {volume.id} is gone before it could be used")

    async def drop(self, volume: FlyVolume | None) -> FlyVolume | None:
        """There is no room where a volume is, so one that holds nothing is made elsewhere."""
        row = self._ledger.row
        if volume is None or row.provision_step not in steps.NEEDLESS:
            return volume
        await self.delete(volume.id)
        kind = steps.COPYING if steps.copies(row) else steps.BEGUN
        await self._ledger.write(volume_id=None, provision_step=steps.since_now(kind))
        return None

    async def delete(self, volume_id: str) -> None:
        """Delete one that no machine has, or that its machine is letting go of."""
        client, app = self._client, self._ledger.app
        while True:
            try:
                await self._patience.of(lambda: client.delete_volume(app, volume_id))
            except FlyError as error:
                if error.reason != "volume-bound" and error.verdict is not Verdict.AMBIGUOUS:
                    raise
                await self._patience.pause(error)
            else:
                return


def _named(volumes: Iterable[FlyVolume], name: str) -> FlyVolume | None:
    """The one of this name; of several, one that a machine has."""
    found = [volume for volume in volumes if volume.name == name]
    if len(found) > 1:
        _log.error("several volumes {name}: {ids}", name=name, ids=[each.id for each in found])
    return min(found, key=lambda each: (each.attached_machine_id is None, each.id), default=None)
