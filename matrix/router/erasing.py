"""The end of a deleted user's machine: it and its data go, and the row tells so."""

from __future__ import annotations

from matrix.machines import LifecycleEvent
from matrix.model import MachineState, UserId
from matrix.router.fleet import Fleet


async def destroy_machine(fleet: Fleet, user_id: UserId) -> bool:
    """
    Destroy the machine of a user who was deleted, if there is one; whether there is none now.
    The row tells of it before anything is done, so that whoever comes after a crash goes on.

    @raise ProviderError: it cannot be destroyed now.
    @raise StaleRow: another router has just done something with it.
    """
    machine = await fleet.directory.machine(user_id)
    if machine is None or machine.state is MachineState.DESTROYED:
        return True
    if fleet.taken(machine):
        return False
    machine = await fleet.advance(machine, LifecycleEvent.DESTROY, **fleet.claim())
    await fleet.provider.destroy(machine)
    await fleet.settle(machine, LifecycleEvent.DESTROYED, address=None, boot_id=None)
    await fleet.directory.record(user_id, "destroyed", "deleted")
    return True
