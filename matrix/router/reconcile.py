"""Reconcile: what the directory says of machines against what the provider sees of them."""

from __future__ import annotations

from twisted.logger import Logger

from matrix.directory import StaleRow
from matrix.machines import LifecycleEvent, Observed, ProviderError, next_state
from matrix.model import Machine, MachineState, UserId
from matrix.router.fleet import Fleet
from matrix.router.wake import Waker

PAGE = 500
"""Rows read at once."""

_IN_TRANSITION = frozenset({MachineState.STARTING, MachineState.DRAINING, MachineState.SUSPENDING})
_log = Logger()


class Reconciler:
    """Heals what a router that died left behind, and notices what nobody reported."""

    def __init__(self, fleet: Fleet, waker: Waker) -> None:
        self._fleet = fleet
        self._directory = fleet.directory
        self._provider = fleet.provider
        self._waker = waker

    async def run(self) -> None:
        """One pass over all machines."""
        after: UserId | None = None
        while True:
            page = await self._directory.machines(after, PAGE)
            for machine in page:
                if machine.provider == self._provider.name and self._settled(machine):
                    await self._check(machine)
            if len(page) < PAGE:
                return
            after = page[-1].user_id

    def _settled(self, machine: Machine) -> bool:
        """Whether nobody is at work on the machine, and there should be something to see."""
        if machine.machine_id is None:
            return False
        if machine.state in _IN_TRANSITION:
            return not self._fleet.leased(machine)
        return machine.state is MachineState.RUNNING

    async def _check(self, machine: Machine) -> None:
        try:
            observed: Observed = await self._provider.inspect(machine)
            if observed.state is not machine.state:
                await self._correct(machine, observed)
            if observed.state is MachineState.RUNNING:
                await self._waker.adopt(machine.user_id)
        except StaleRow:
            pass  # somebody is at it: the next pass sees what came of it
        except ProviderError as error:
            _log.warn("cannot inspect {user}: {error}", user=machine.user_id, error=error)

    async def _correct(self, machine: Machine, observed: Observed) -> None:
        state = next_state(machine.state, _event(machine.state, observed.state))
        detail = {"was": machine.state.value, "is": state.value}
        fields: dict[str, object] = {"state": state, "lease_owner": None, "lease_expires_at": None}
        if observed.address is not None:
            fields |= {"address": observed.address, "boot_id": observed.boot_id}
        await self._directory.change(machine, **fields)
        await self._directory.record(machine.user_id, "reconciled", "router", detail)
        _log.info("{user} is {now}, not {was}", user=machine.user_id, now=state, was=machine.state)


def _event(said: MachineState, seen: MachineState) -> LifecycleEvent:
    """What must have happened between what the row says and what the provider sees."""
    if seen is MachineState.RUNNING:
        return LifecycleEvent.WOKE if said is MachineState.STARTING else LifecycleEvent.KEEP
    return {
        MachineState.SUSPENDED: LifecycleEvent.FOUND_SUSPENDED,
        MachineState.STOPPED: LifecycleEvent.DIED,
    }.get(seen, LifecycleEvent.GONE)
