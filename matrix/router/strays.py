"""What is at the provider and belongs to nobody: taken up, told of, and in the end deleted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from twisted.logger import Logger

from matrix.directory import StaleRow, UnknownUser
from matrix.machines import LifecycleEvent, ProviderError, Sighted
from matrix.metrics import Registry, series
from matrix.model import Machine, MachineState, Stray
from matrix.router.fleet import Fleet
from matrix.router.judgement import is_wanted, why_astray

CAUSE = "router"
"""Of the events that come of it."""

_log = Logger()


class Strays:
    """Settles what a survey found that no row knows of."""

    def __init__(self, fleet: Fleet, registry: Registry, quarantine: float) -> None:
        """@param quarantine: seconds after which what we made is deleted; 0: never."""
        self._fleet = fleet
        self._directory = fleet.directory
        self._registry = registry
        self._quarantine = timedelta(seconds=quarantine)

    async def settle(self, found: Sequence[Sighted], blind: Collection[str]) -> None:
        """
        @param found: of a whole survey, what no row knew of.
        @param blind: regions that it did not see.
        """
        # As it is now: what was made while the survey went on is in its row by now.
        rows = await self._directory.roll.of({one.user_id for one in found if one.user_id})
        places = await self._directory.stock.places(self._fleet.provider.name)
        in_stock = {place.user_id for place in places}
        strays: list[Stray] = []
        for one in found:
            if one.user_id in in_stock:
                continue
            row = rows.get(one.user_id) if one.user_id is not None else None
            if row is not None and is_wanted(row, one):
                await self._adopt(row, one)
            elif (reason := why_astray(row, one)) is not None:
                strays.append(self._stray(one, reason))
        noted = await self._directory.strays.note(strays)
        for stray in noted:
            if stray.first_seen == stray.last_seen:
                await self._tell("stray", stray)
        provider = self._fleet.provider.name
        over = await self._directory.strays.settle(provider, [one.id for one in noted], blind)
        for stray in over:
            _log.info("{kind} {id} is astray no more", kind=stray.kind, id=stray.id)
        for kind in ("machine", "volume"):
            count = sum(stray.kind == kind for stray in noted)
            self._registry.gauge(series.STRAYS, kind).value = float(count)
        for stray in noted:
            if self._is_over(stray):
                await self._reap(stray)

    # those that a row wants

    async def _adopt(self, row: Machine, one: Sighted) -> None:
        """Let the row know of its machine, as the next request would."""
        fleet = self._fleet
        if fleet.leased(row):
            return
        try:
            if row.state is MachineState.LOST:
                row = await fleet.advance(
                    row, LifecycleEvent.WAKE, machine_id=None, address=None, boot_id=None,
                    **fleet.claim(),
                )  # fmt: skip
            else:
                row = await self._directory.change(row, **fleet.claim())
            writer = fleet.row(row)
            environment = fleet.environment(row)
            wanted = replace(row, wake_cause="survey")  # nobody waits for it
            machine_id = await fleet.provider.provision(wanted, environment, writer.keep)
            await fleet.settle(writer.machine, LifecycleEvent.DIED, machine_id=machine_id)
        except StaleRow:
            return  # somebody is at it
        except ProviderError as error:
            _log.warn("{user}: not adopted: {error}", user=row.user_id, error=error)
            return
        await self._directory.record(row.user_id, "adopted", CAUSE, {"machine": one.id})

    # the others

    def _stray(self, one: Sighted, reason: str) -> Stray:
        return Stray(
            id=one.id, kind=one.kind, provider=self._fleet.provider.name, app=one.app,
            name=one.name, region=one.region, user_id=one.user_id, reason=reason, ours=one.ours,
        )  # fmt: skip

    async def _tell(self, event: str, stray: Stray) -> None:
        detail = {"id": stray.id, "what": stray.kind, "reason": stray.reason}
        _log.warn("{event}: {what} {id}: {reason}", event=event, **detail)
        if stray.user_id is not None:
            try:
                await self._directory.record(stray.user_id, event, CAUSE, detail)
            except UnknownUser:
                return  # there is no history to write to: the log has it, and the list of strays

    def _is_over(self, stray: Stray) -> bool:
        if not self._quarantine or not stray.ours or stray.first_seen is None:
            return False
        return datetime.now(UTC) - stray.first_seen > self._quarantine

    async def _reap(self, stray: Stray) -> None:
        """Delete it, unless its user has come to want it; nobody makes them a machine meanwhile."""
        try:
            row = await self._hold(stray)
            try:
                gone = await self._fleet.provider.discard(stray)
            finally:
                if row is not None:
                    await self._directory.change(row, lease_owner=None, lease_expires_at=None)
        except StaleRow:
            return  # somebody is at it: the next survey sees what came of it
        except ProviderError as error:
            _log.warn("{kind} {id} stays: {error}", kind=stray.kind, id=stray.id, error=error)
            return
        if gone:
            await self._tell("reaped", stray)
            await self._directory.strays.remove(stray.id)

    async def _hold(self, stray: Stray) -> Machine | None:
        """
        The row that might want it, kept from others.

        @raise StaleRow: it does, or somebody has it in hand.
        """
        naming = await self._directory.roll.naming(stray.id)
        if any(row.state is not MachineState.DESTROYED for row in naming):
            raise StaleRow(f"{stray.id} is in use")
        if stray.user_id is None:
            return None
        row = await self._directory.machine(stray.user_id)
        if row is None:
            return None
        named = Sighted(
            stray.id, stray.kind, stray.app, stray.name, stray.region, stray.user_id, stray.ours
        )
        if self._fleet.leased(row) or why_astray(row, named) is None:
            raise StaleRow(f"{stray.id} is wanted, or may be")
        return await self._directory.change(row, **self._fleet.claim())
