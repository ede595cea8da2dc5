"""The part of the admin API that has a user's machine made before they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from matrix.api import send_json
from matrix.directory import StaleRow
from matrix.errors import MatrixError, NotFound, Unavailable
from matrix.http.interfaces import Exchange
from matrix.machines import LifecycleEvent
from matrix.model import Machine, MachineState, User, user_id
from matrix.router import placing
from matrix.router.asking import CAUSE, find_user, reaching_the_directory
from matrix.router.fleet import SOON, Fleet
from matrix.router.rousing import check_state

PROVISIONED: Final = "provisioned"
"""The kind of event that tells of it."""

Add = Callable[..., None]
"""L{matrix.api.Api.add}."""


class ProvisionApi:
    """Makes machines, which sleep until they are wanted."""

    def __init__(self, fleet: Fleet, clock: IReactorTime) -> None:
        self._fleet = fleet
        self._clock = clock

    def join(self, add: Add) -> None:
        """Be part of an admin API."""
        add("POST", "/admin/v1/users/<user>/provision", self._provision)

    async def _provision(self, exchange: Exchange, user: str) -> None:
        began = self._clock.seconds()
        with reaching_the_directory():
            found = await self._admitted(user)
            try:
                was_there, machine = await self._made(found)
            except StaleRow:
                raise _busy() from None
        content = {
            "user": found.id,
            "email": found.email,
            "made": not was_there,
            "state": machine.state.value,
            "machine_id": machine.machine_id,
            "volume_id": machine.volume_id,
            "region": machine.region,
            "size": machine.size,
            "ms": round((self._clock.seconds() - began) * 1000),
        }
        send_json(exchange, content)

    async def _admitted(self, text: str) -> User:
        """
        The user that is meant; one who has never come is admitted, by their user id.

        @raise MatrixError: nobody is known by this text, or the user may not come in.
        """
        try:
            found = await find_user(self._fleet.directory, text)
        except NotFound as error:
            try:
                known = user_id(text)
            except ValueError:
                raise error from None
            found = await self._fleet.directory.admit(known, "")
        check_state(found)
        return found

    async def _made(self, user: User) -> tuple[bool, Machine]:
        """
        Whether there was a machine already, and its row.

        @raise StaleRow: somebody has begun to wake it.
        @raise MatrixError: it could not be made.
        """
        fleet = self._fleet
        machine = await fleet.directory.create_machine(user.id, fleet.provider.name)
        if machine.machine_id is not None and machine.state is not MachineState.LOST:
            return True, machine
        if fleet.leased(machine):
            raise _busy()
        if machine.state is MachineState.LOST:
            fields: dict[str, object] = {"machine_id": None, "address": None, "boot_id": None}
            machine = await fleet.advance(machine, LifecycleEvent.WAKE, **fields, **fleet.claim())
        else:
            machine = await fleet.directory.change(machine, **fleet.claim())
        row = fleet.row(machine)
        machine_id = await fleet.ask(row, placing.made(fleet, row))
        machine = await fleet.settle(
            row.machine, LifecycleEvent.STOP, machine_id=machine_id, state_reason=None
        )
        await fleet.directory.record(user.id, PROVISIONED, CAUSE, {"region": machine.region})
        return False, machine


def _busy() -> MatrixError:
    return Unavailable(
        "The machine is being made or woken at this moment.", reason="lease", retry_after=SOON
    )
