"""Making a user's machine on Fly: once, whatever is lost on the way.

Its steps are written to the machine's row. A fresh row says that nothing was ever asked of Fly
for this user; any other, that something may have been that we were not told of, so that names
and metadata are looked at before anything is made.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from twisted.logger import Logger

from matrix.machines._fly import FlyClient
from matrix.machines._fly_errors import FlyError, Verdict
from matrix.machines._fly_patience import Patience
from matrix.machines._fly_plans import USER_KEY, FlyPlans, Wanted, machine_name, volume_name
from matrix.machines._fly_types import FlyMachine, FlyVolume
from matrix.machines.interfaces import Keep, ProviderError
from matrix.model import Machine

BEGUN = "begun"
"""Calls may have been made, of which nothing is known; and since when (unix seconds)."""
EMPTY = "volume"
"""There is a volume that we made and that no machine has had: it may be thrown away."""
FOUND = "found"
"""There is a volume that was found by its name, and may hold data."""
IN_FLIGHT = 5.0
"""Seconds for which a call may still be about to be carried out whose caller is gone."""
SKEW = 60
"""Seconds by which Fly's clock may be behind ours."""
MADE = "made"
"""There is, or was, a machine."""

AGAIN = 1.0
"""Seconds after which to try again when it is not clear what came of a call."""
FULL_AGAIN = 30.0
"""Seconds after which to try again when there is no room anywhere."""

_log = Logger()


class Making:
    """One attempt to make one user's machine."""

    def __init__(
        self,
        client: FlyClient,
        plans: FlyPlans,
        patience: Patience,
        machine: Machine,
        environment: Mapping[str, str],
        keep: Keep,
    ) -> None:
        self._client = client
        self._plans = plans
        self._app = machine.app or plans.place.app
        self._patience = patience
        self._row = machine
        self._environment = environment
        self._keep = keep

    async def run(self) -> str:
        """
        The id of the user's machine, which is made unless there is one.

        @raise ProviderError: it could not be; the next attempt goes on from here.
        """
        fresh = self._row.provision_step is None and self._row.machine_id is None
        if not fresh and (found := await self._existing()) is not None:
            return await self._adopt(found)
        if fresh:
            await self._write(app=self._app, provision_step=_begun())
        volume = await self._present_volume(fresh)
        full: list[str] = []
        for region in self._regions(volume):
            try:
                volume = volume or await self._new_volume(self._wanted(region))
                return await self._machine(self._wanted(volume.region), volume.id)
            except FlyError as error:
                if error.verdict is not Verdict.NO_CAPACITY:
                    raise
                full.append(f"{region}: {error}")
                volume = await self._drop(volume)
        raise ProviderError(f"no room at Fly: {'; '.join(full)}", retry_after=FULL_AGAIN)

    # what is there already

    async def _existing(self) -> FlyMachine | None:
        """The user's machine, if there is one."""
        row, client = self._row, self._client
        if row.machine_id is not None:
            machine_id = row.machine_id
            try:
                found = await self._patience.of(lambda: client.machine(self._app, machine_id))
                if not found.is_gone:
                    return found
            except FlyError as error:
                if error.reason != "not-found":
                    raise
        return await self._by_metadata()

    async def _by_metadata(self) -> FlyMachine | None:
        whose = {USER_KEY: self._row.user_id}
        try:
            found = await self._patience.of(lambda: self._client.machines(self._app, **whose))
        except FlyError as error:
            if error.reason == "not-found":
                return None  # not even the app
            raise
        alive = sorted((each for each in found if not each.is_gone), key=lambda each: each.id)
        if len(alive) > 1:
            ids = [each.id for each in alive]
            _log.error("{user} has several machines: {ids}", user=self._row.user_id, ids=ids)
        return alive[0] if alive else None

    async def _adopt(self, found: FlyMachine) -> str:
        """A machine is the user's: write it down."""
        row = self._row
        mine = found.volume_id or row.volume_id
        if row.volume_id not in (None, mine) and row.provision_step == EMPTY:
            await self._delete(str(row.volume_id))
        fields = {"machine_id": found.id, "volume_id": mine, "app": self._app}
        fields |= {"region": found.region or row.region, "provision_step": MADE}
        if any(getattr(row, name) != value for name, value in fields.items()):
            await self._write(**fields)
        return found.id

    async def _present_volume(self, fresh: bool) -> FlyVolume | None:
        """The user's volume, if there is one."""
        row, client = self._row, self._client
        if row.volume_id is not None:
            volume_id = row.volume_id
            try:
                found = await self._patience.of(lambda: client.volume(self._app, volume_id))
                if not found.is_gone:
                    return found
            except FlyError as error:
                if error.reason != "not-found":
                    raise
            if row.provision_step == MADE:
                _log.error("{user}: volume {id} is gone", user=row.user_id, id=volume_id)
        return None if fresh else await self._by_name()

    async def _by_name(self) -> FlyVolume | None:
        """
        The user's volume, if there is one. Names of volumes need not be unique, so it has to be
        certain that none is on its way.
        """
        found = await self._listed()
        if found is None and (seconds := _in_flight(self._row.provision_step)) > 0:
            await self._patience.sleep(seconds)
            found = await self._listed()
        if found is not None:
            step = EMPTY if _was_made_since(self._row.provision_step, found) else FOUND
            await self._write(volume_id=found.id, region=found.region, provision_step=step)
        return found

    async def _listed(self) -> FlyVolume | None:
        try:
            volumes = await self._patience.of(lambda: self._client.volumes(self._app))
        except FlyError as error:
            if error.reason == "not-found":
                return None  # not even the app
            raise
        return _named(volumes, volume_name(self._row.user_id))

    # what is made

    def _regions(self, volume: FlyVolume | None) -> Iterable[str]:
        """Where to try, in turns: where the volume is, and elsewhere if it is empty."""
        usual = self._plans.place.regions
        if volume is None:
            return usual
        if self._row.provision_step != EMPTY:
            return (volume.region,)
        return (volume.region, *(region for region in usual if region != volume.region))

    def _wanted(self, region: str) -> Wanted:
        return self._plans.wanted(self._row.user_id, self._environment, region)

    async def _new_volume(self, wanted: Wanted) -> FlyVolume:
        while True:
            try:
                made = await self._patience.of(lambda: self._create_volume(wanted.volume()))
            except FlyError as error:
                if error.verdict is not Verdict.AMBIGUOUS:
                    raise
                found = await self._by_name()
                if found is not None:
                    return found
                await self._patience.pause(error)
                await self._write(provision_step=_begun())
            else:
                await self._write(volume_id=made.id, region=made.region, provision_step=EMPTY)
                return made

    async def _create_volume(self, request: Mapping[str, Any]) -> FlyVolume:
        try:
            return await self._client.create_volume(self._app, request)
        except FlyError as error:
            if error.reason != "not-found":
                raise
        # A volume is the first thing in an app; so it is the app that is not found.
        try:
            await self._client.create_app(self._app, self._plans.place.org)
        except FlyError as error:
            if error.reason != "app-name-taken":  # by us, for another user, a moment ago
                raise
        return await self._client.create_volume(self._app, request)

    async def _drop(self, volume: FlyVolume | None) -> FlyVolume | None:
        """There is no room where an empty volume is, so it has to be made elsewhere."""
        if volume is None or self._row.provision_step != EMPTY:
            return volume
        await self._delete(volume.id)
        await self._write(volume_id=None, provision_step=_begun())
        return None

    async def _delete(self, volume_id: str) -> None:
        await self._patience.of(lambda: self._client.delete_volume(self._app, volume_id))

    async def _machine(self, wanted: Wanted, volume_id: str) -> str:
        name, config = machine_name(wanted.user_id), wanted.config(volume_id)
        while True:
            try:
                made = await self._client.create_machine(
                    self._app, name, wanted.region, config, launch=False
                )
            except FlyError as error:
                found = await self._perhaps_made(error)
                if found is not None:
                    return await self._adopt(found)
                await self._patience.pause(error)
            else:
                await self._write(
                    machine_id=made.id, image=self._plans.place.image, provision_step=MADE
                )
                return made.id

    async def _perhaps_made(self, error: FlyError) -> FlyMachine | None:
        """
        What was made although making it was refused, or not answered.

        @return: C{None} if it may be tried again.
        @raise FlyError: it may not.
        """
        if error.verdict is Verdict.SOON:
            return None
        if error.verdict is not Verdict.AMBIGUOUS and error.reason != "volume-claimed":
            raise error
        found = await self._by_metadata()
        if found is None and error.reason != "name-taken":
            raise _later(error) from error
        return found

    async def _write(self, **fields: object) -> None:
        self._row = await self._keep(**fields)


def _begun() -> str:
    return f"{BEGUN} {time.time():.3f}"


def _in_flight(step: str | None) -> float:
    """For how many seconds something that was asked for may still come to be."""
    begun, _, at = (step or "").partition(" ")
    return min(float(at) + IN_FLIGHT - time.time(), IN_FLIGHT) if begun == BEGUN else 0.0


def _was_made_since(step: str | None, volume: FlyVolume) -> bool:
    """Whether a volume was made since we began, so that it is ours and empty."""
    begun, _, at = (step or "").partition(" ")
    made = volume.created_at
    if begun != BEGUN or made is None or volume.attached_machine_id is not None:
        return False
    return made.timestamp() >= float(at) - SKEW


def _named(volumes: Iterable[FlyVolume], name: str) -> FlyVolume | None:
    """The one of this name; of several, one that a machine has."""
    found = [volume for volume in volumes if volume.name == name]
    if len(found) > 1:
        _log.error("several volumes {name}: {ids}", name=name, ids=[each.id for each in found])
    return min(found, key=lambda each: (each.attached_machine_id is None, each.id), default=None)


def _later(error: FlyError) -> FlyError:
    """The same: what came of the call may show in a moment."""
    return FlyError(
        error.verdict,
        error.reason,
        str(error),
        status=error.status,
        request_id=error.request_id,
        retry_after=error.retry_after or AGAIN,
    )
