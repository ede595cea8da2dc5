"""Moving a machine that cannot be started where it is: another one is made elsewhere, beside it.

The row keeps the former machine and volume until the new machine has answered; only then are they
deleted. Whatever is interrupted, the row says which of the two holds the truth: the former one as
long as the new one is C{on_trial}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.logger import Logger

from matrix.machines import _fly_steps as steps
from matrix.machines._fly_errors import FlyError
from matrix.machines._fly_patience import Patience
from matrix.machines._fly_resting import Resting
from matrix.machines._fly_sight import UNREACHABLE_AGAIN, Sight
from matrix.machines._fly_volumes import Ledger, Volumes
from matrix.machines.interfaces import ProviderError, Stranded

COMPLETE = frozenset({"created", "extending"})
"""States of a volume that has all of its data: a copy needs its source until then."""

STILL_COPIED_AGAIN = 30.0
"""Seconds after which to look again whether a copy is complete."""

_log = Logger()


class Moving:
    """The begin and the end of one machine's move."""

    def __init__(self, sight: Sight, patience: Patience, ledger: Ledger) -> None:
        self._sight = sight
        self._client = sight.client
        self._patience = patience
        self._ledger = ledger
        self._volumes = Volumes(sight.client, patience, ledger, sight.plans.place.org)

    async def begin(self, fresh: bool) -> None:
        """
        Let the row say that a machine is to be made elsewhere; C{Making} makes it.

        @param fresh: with an empty volume. So it stays until it answers: what was not to be
            copied is not copied by another attempt either.
        @raise Stranded: the volume cannot be copied.
        """
        if not self._ledger.row.on_trial and not await self.end():
            text = "it was moved a moment ago, and its data are still being copied"
            raise ProviderError(text, retry_after=STILL_COPIED_AGAIN)
        row = self._ledger.row
        fresh = fresh or (row.on_trial and row.provision_step == steps.ANEW)
        known = row.former_volume_id if row.on_trial else await self._volume_of_row()
        if not fresh:
            await self._check_source(known)
        step = steps.since_now(steps.BEGUN if fresh else steps.COPYING)
        if row.on_trial:  # what was made has never answered, so it holds nothing
            await self._give_up()
            await self._ledger.write(machine_id=None, volume_id=None, provision_step=step)
        else:
            await self._ledger.write(
                former_machine_id=row.machine_id,
                former_volume_id=known,
                machine_id=None,
                volume_id=None,
                on_trial=True,
                provision_step=step,
            )

    async def end(self) -> bool:
        """
        The new machine holds the truth: delete the former one.

        @return: whether nothing of it is left.
        """
        row = self._ledger.row
        if row.former_machine_id is None and row.former_volume_id is None:
            return True
        if row.volume_id is not None:
            volume = await self._volumes.look(row.volume_id)
            if volume is not None and volume.state not in COMPLETE:
                return False
        if row.former_machine_id is not None:
            await self._destroy(row.former_machine_id)
            await self._ledger.write(former_machine_id=None)
        if row.former_volume_id is not None:
            await self._volumes.delete(row.former_volume_id)
            await self._ledger.write(former_volume_id=None)
        return True

    async def _volume_of_row(self) -> str | None:
        """The one that the machine has: another than it was made with if Fly has moved it."""
        row = self._ledger.row
        if row.machine_id is None:
            return row.volume_id
        machine_id = row.machine_id
        try:
            found = await self._patience.of(
                lambda: self._client.machine(self._ledger.app, machine_id)
            )
        except FlyError as error:
            if error.reason != "not-found":
                raise
            return row.volume_id
        return found.volume_id or row.volume_id

    async def _check_source(self, volume_id: str | None) -> None:
        """@raise Stranded: it cannot be copied."""
        source = None if volume_id is None else await self._volumes.look(volume_id)
        if source is None:
            raise Stranded(f"there is no volume {volume_id} at Fly to be copied", can_copy=False)
        if source.host_status not in ("ok", "unknown", ""):
            raise Stranded(
                f"the host of volume {volume_id} cannot be reached",
                can_copy=False,
                retry_after=UNREACHABLE_AGAIN,
            )

    async def _give_up(self) -> None:
        """Delete what was made in a move that came to nothing."""
        row = self._ledger.row
        if row.machine_id is not None:
            await self._destroy(row.machine_id)
        if row.volume_id is not None:
            await self._volumes.delete(row.volume_id)

    async def _destroy(self, machine_id: str) -> None:
        machine = replace(self._ledger.row, machine_id=machine_id)
        await Resting(self._sight, self._patience, machine).destroy()
