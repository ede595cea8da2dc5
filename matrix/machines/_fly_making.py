"""Making a user's machine on Fly: once, whatever is lost on the way.

Its steps (L{matrix.machines._fly_steps}) are written to the machine's row. Unless it is fresh,
names and metadata are looked at before anything is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from twisted.logger import Logger

from matrix.machines import _fly_steps as steps
from matrix.machines._fly import FlyClient
from matrix.machines._fly_errors import FlyError, Verdict
from matrix.machines._fly_patience import Patience
from matrix.machines._fly_plans import FlyPlace, Wanted
from matrix.machines._fly_rates import Priority
from matrix.machines._fly_types import FlyMachine, FlyVolume
from matrix.machines._fly_volumes import Ledger, Volumes
from matrix.machines.interfaces import ProviderError, Stranded

AGAIN = 1.0
"""Seconds after which to try again when it is not clear what came of a call."""
LOOKS = 20
"""How often to look, with pauses, for a machine that is said to be there: for some seconds Fly may
not show one that it has made (facts/fly.md section 4)."""
FULL_AGAIN = 30.0
"""Seconds after which to try again when there is no room anywhere."""

WantedAt = Callable[[str | None, str | None], Wanted]
"""What the machine is to be like, in a region and of a size (C{None}: the usual)."""

_log = Logger()


class Making:
    """One attempt to make one machine."""

    def __init__(
        self,
        client: FlyClient,
        place: FlyPlace,
        patience: Patience,
        ledger: Ledger,
        wanted_at: WantedAt,
        priority: Priority = Priority.WAKE,
    ) -> None:
        self._client = client
        self._place = place
        self._patience = patience
        self._ledger = ledger
        self._wanted_at = wanted_at
        self._priority = priority
        self._volumes = Volumes(client, patience, ledger, place.org, priority)

    async def run(self) -> str:
        """
        The id of the user's machine, which is made unless there is one.

        @raise Stranded: there is a volume with data, and no room beside it.
        @raise ProviderError: it could not be made; the next attempt goes on from here.
        """
        row = self._ledger.row
        usual = self._wanted_at(row.region, None)
        volume = None
        if row.provision_step is not None or row.machine_id is not None:
            found = None if row.machine_id is None else await self._look(row.machine_id)
            if found is None:
                volume = await self._volumes.present(usual)
                found = await self._holder(volume)
            if found is not None:
                return await self._adopt(found)
        return await self._make(volume)

    async def _make(self, volume: FlyVolume | None) -> str:
        full: list[str] = []
        for region, size in self._targets(volume):
            wanted = self._wanted_at(region, size)
            try:
                if self._ledger.row.size != size:
                    await self._ledger.write(size=size)
                volume = volume or await self._volumes.make(wanted)
                await self._volumes.usable(volume)
                return await self._machine(self._wanted_at(volume.region, size), volume.id)
            except FlyError as error:
                if error.verdict is not Verdict.NO_CAPACITY:
                    raise
                full.append(f"{region}{f' {size}' if size else ''}: {error}")
                volume = await self._volumes.drop(volume)
        text = f"no room at Fly: {'; '.join(full)}"
        if volume is not None:
            raise Stranded(text, can_copy=True, retry_after=FULL_AGAIN)
        if self._ledger.row.on_trial:
            await self._return()
        raise ProviderError(text, retry_after=FULL_AGAIN)

    async def _return(self) -> None:
        """Nowhere is there room for a machine that was to be moved: perhaps there is where it
        was, when it is tried again."""
        row = self._ledger.row
        volume_id = row.former_volume_id
        volume = None if volume_id is None else await self._volumes.look(volume_id)
        await self._ledger.write(
            machine_id=row.former_machine_id,
            volume_id=volume_id,
            region=row.region if volume is None else volume.region,
            former_machine_id=None,
            former_volume_id=None,
            on_trial=False,
            provision_step=steps.MADE,
        )

    def _targets(self, volume: FlyVolume | None) -> Iterator[tuple[str, str | None]]:
        """Where to try, and how large, in turns: all sizes in one region, then in the next; and
        nowhere but where the volume is, if it holds data."""
        row, usual = self._ledger.row, self._place.regions
        first = row.region if volume is None else volume.region
        needless = volume is None or row.provision_step in steps.NEEDLESS
        regions: Iterable[str] = (region for region in usual if region != first)
        regions = (*([first] if first else []), *(regions if needless else ()))
        return ((region, size) for region in regions for size in (None, *self._place.sizes))

    # what is there already

    async def _look(self, machine_id: str) -> FlyMachine | None:
        """A machine, if there is one and it shows."""
        client, app = self._client, self._ledger.app
        try:
            found = await self._patience.of(lambda: client.machine(app, machine_id, self._priority))
        except FlyError as error:
            if error.reason != "not-found":
                raise
            return None
        return None if found.is_gone else found

    async def _holder(self, volume: FlyVolume | None) -> FlyMachine | None:
        """
        The machine that has a volume. To ask for it costs no call of those that the whole app
        shares, as a listing does.
        """
        machine_id = None if volume is None else volume.attached_machine_id
        if machine_id is None:
            return None
        for _ in range(LOOKS):
            found = await self._look(machine_id)
            if found is not None:
                return found
            await self._patience.moment()
        return None

    async def _by_metadata(self, wanted: Wanted) -> FlyMachine | None:
        row, client, app = self._ledger.row, self._client, self._ledger.app
        try:
            found = await self._patience.of(lambda: client.machines(app, **wanted.owner))
        except FlyError as error:
            if error.reason == "not-found":
                return None  # not even the app
            raise
        alive = [each for each in found if not each.is_gone and each.id != row.former_machine_id]
        if len(alive) > 1:
            ids = sorted(each.id for each in alive)
            _log.error("{user} has several machines: {ids}", user=row.user_id, ids=ids)
        return min(alive, key=lambda each: each.id, default=None)

    async def _adopt(self, found: FlyMachine) -> str:
        """A machine is the user's: write it down, here and there."""
        row = self._ledger.row
        if row.provision_step == steps.CLAIMED:
            found = await self._hand_over(found)
        mine = found.volume_id or row.volume_id
        spare = row.volume_id if row.provision_step in (steps.EMPTY, steps.COPY) else None
        if spare is not None and spare != mine:
            await self._volumes.delete(spare)
        fields = {"machine_id": found.id, "volume_id": mine, "app": self._ledger.app}
        fields |= {"region": found.region or row.region, "provision_step": steps.made(row)}
        if any(getattr(row, name) != value for name, value in fields.items()):
            await self._ledger.write(**fields)
        return found.id

    async def _hand_over(self, found: FlyMachine) -> FlyMachine:
        """
        Tell a machine from stock whose it is.

        @raise FlyError: it cannot be told now.
        """
        row, client, app = self._ledger.row, self._client, self._ledger.app
        wanted = self._wanted_at(found.region or row.region, row.size)
        while not wanted.owner.items() <= found.metadata.items():
            config = wanted.config(str(found.volume_id or row.volume_id))
            try:
                return await client.update_machine(app, found, config, priority=self._priority)
            except FlyError as error:
                if error.verdict not in (Verdict.SOON, Verdict.AMBIGUOUS):
                    raise
                await self._patience.pause(error)
            found = await self._patience.of(lambda: client.machine(app, str(row.machine_id)))
        return found

    # what is made

    async def _machine(self, wanted: Wanted, volume_id: str) -> str:
        former, name = self._ledger.row.former_machine_id, wanted.machine_name
        if former is not None:  # which has that name, or one of this kind, as long as it is there
            name = f"{name}-{former}"
        config = wanted.config(volume_id)
        while True:
            try:
                made = await self._client.create_machine(
                    self._ledger.app,
                    name,
                    wanted.region,
                    config,
                    launch=False,
                    priority=self._priority,
                )
            except FlyError as error:
                found = await self._perhaps_made(error, wanted, volume_id)
                if found is not None:
                    return await self._adopt(found)
                await self._patience.pause(error)
            else:
                step, image = steps.made(self._ledger.row), self._place.image
                await self._ledger.write(machine_id=made.id, image=image, provision_step=step)
                return made.id

    async def _perhaps_made(
        self, error: FlyError, wanted: Wanted, volume_id: str
    ) -> FlyMachine | None:
        """
        What was made although making it was refused, or not answered.

        @return: C{None} if it may be tried again: its name keeps it from being made twice.
        @raise FlyError: it may not.
        """
        if error.verdict is Verdict.SOON:
            return None
        if error.verdict is not Verdict.AMBIGUOUS and error.reason != "volume-claimed":
            raise error
        found = await self._holder(await self._volumes.look(volume_id))
        if found is None and error.reason == "name-taken":
            found = await self._by_metadata(wanted)
        elif found is None and error.reason == "volume-claimed":
            raise _later(error) from error
        return found


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
