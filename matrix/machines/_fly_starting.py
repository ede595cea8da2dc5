"""Starting a machine at Fly: one call that starts it, and one that says where it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property

from twisted.logger import Logger

from matrix.machines import _fly_patience
from matrix.machines._fly_boots import boot_id, latest
from matrix.machines._fly_errors import FlyError, Verdict
from matrix.machines._fly_patience import Patience
from matrix.machines._fly_plans import Wanted
from matrix.machines._fly_sight import Sight, identified
from matrix.machines._fly_types import FlyMachine
from matrix.machines.interfaces import Started
from matrix.model import Address, Machine, MachineState

_FROZEN = frozenset({MachineState.SUSPENDING, MachineState.SUSPENDED})
"""Said to be so, a machine is started without a look at it: it keeps the config it has."""

_CHANGEABLE = frozenset({"created", "stopped", "failed"})
"""States in which another config costs no memory."""

_PASSES: Mapping[str, str] = {
    "stopping": "stopped",
    "suspending": "suspended",
    "replacing": "stopped",
    "updating": "settled",
}
"""States in which Fly may refuse a start, and those that they lead to."""

_SAID = re.compile("current state: '?([a-z]+)")
"""What Fly says in its refusal that the machine is."""

PASSING_SECONDS = 5.0
"""For one wait for that; then it is looked at again."""

_WAS: Mapping[str, MachineState] = {
    "created": MachineState.PROVISIONING,
    "suspended": MachineState.SUSPENDED,
    "suspending": MachineState.SUSPENDED,
    "started": MachineState.RUNNING,
    "starting": MachineState.RUNNING,
}

CHANGE_TRIES = 3
"""As often as a config is sent that could not be taken for a moment."""

_log = Logger()


class Starting:
    """One attempt to start one machine."""

    def __init__(
        self,
        sight: Sight,
        patience: Patience,
        machine: Machine,
        wanted: Callable[[], Wanted],
    ) -> None:
        """
        @param wanted: what it is to be like. Asked for late: rendering the template takes a
            millisecond, while which the machine may as well resume.
        """
        self._sight = sight
        self._client = sight.client
        self._patience = patience
        self._machine = machine
        self._want = wanted
        self._app = sight.app(machine)
        self._id = identified(machine)

    @cached_property
    def _wanted(self) -> Wanted:
        return self._want()

    async def run(self) -> Started:
        """
        Start it, or find it started.

        @raise ProviderError: it could not be.
        """
        if self._machine.state not in _FROZEN and not self._sight.is_newborn(self._id):
            found = await self._sight.look(self._machine, self._patience)
            if found.state == "started":
                return self._started(found, MachineState.RUNNING)
            if found.state in _CHANGEABLE and self._differs(found):
                await self._change(found)
        was = await self._begin()
        while True:
            # The address as it is from here on: it may be another host's by the start itself.
            found = await self._sight.look(self._machine, self._patience, is_there=True)
            if found.kind != "resting":
                return self._started(found, was)
            # Said to be started already, or being started, it was not.
            await self._patience.sleep(_fly_patience.PAUSE)
            was = await self._begin()

    async def _begin(self) -> MachineState | None:
        """
        Have it started. What it was before, if that is told.

        @raise ProviderError: it cannot be, or not in time.
        """
        while True:
            self._patience.check(f"Fly does not start machine {self._id}")
            try:
                before = (await self._client.start(self._app, self._id)).previous_state
            except FlyError as error:
                if await self._began_all_the_same(error):
                    return None
                if not await self._passed(error):
                    await self._patience.pause(error)
            else:
                return _WAS.get(before, MachineState.STOPPED)

    async def _began_all_the_same(self, error: FlyError) -> bool:
        """
        Whether the machine starts although we were not told so.

        @raise ProviderError: it does not, and trying again is no use.
        """
        if error.reason == "not-found":
            if not self._sight.is_newborn(self._id):
                raise self._sight.gone(self._machine) from error
            return False
        if error.verdict is Verdict.PERMANENT:
            raise error
        if error.verdict is not Verdict.AMBIGUOUS and error.reason != "conflict":
            return False
        found = await self._sight.look(self._machine, self._patience)
        return found.state in ("starting", "started")

    async def _passed(self, error: FlyError) -> bool:
        """
        Wait for the end of what is in a start's way, if that can be waited for; a start each
        quarter of a second would come to no more, and is soon one too many for Fly. Whether it
        was.
        """
        said = _SAID.search(str(error))
        if error.reason not in ("in-transition", "replacing") or (said and said[1] not in _PASSES):
            return False
        found = await self._sight.look(self._machine, self._patience)
        wanted = _PASSES.get(found.state)
        if wanted is None:
            return False
        seconds = min(PASSING_SECONDS, self._patience.left)
        try:
            await self._client.wait(self._app, found, wanted, seconds)
        except FlyError as refusal:
            return refusal.reason == "not-reached"
        return True

    # its config

    def _differs(self, found: FlyMachine) -> bool:
        volume_id = found.volume_id
        return volume_id is not None and self._wanted.differs(found.metadata, volume_id)

    async def _change(self, found: FlyMachine) -> None:
        """Bring its config up to date. One that cannot be had leaves it with what it has."""
        for _ in range(CHANGE_TRIES):
            try:
                config = self._wanted.config(str(found.volume_id))
                await self._client.update_machine(self._app, found, config)
            except FlyError as error:
                if error.verdict not in (Verdict.SOON, Verdict.AMBIGUOUS):
                    self._not_changed(error)
                    return
                await self._patience.pause(error)
            else:
                return
            found = await self._sight.look(self._machine, self._patience)
            if not self._differs(found):
                return

    def _not_changed(self, error: FlyError) -> None:
        _log.error(
            "{user}: machine {id} keeps its config: {error}",
            user=self._machine.user_id, id=self._id, error=error,
        )  # fmt: skip

    def _started(self, found: FlyMachine, was: MachineState | None) -> Started:
        sight, machine = self._sight, self._machine
        sight.seen_started(found)
        if self._differs(found):
            sight.outdated[self._id] = self._wanted
        else:
            sight.outdated.pop(self._id, None)
        was = was or latest(found.events).was or MachineState.STOPPED
        address = Address(host=found.private_ip, port=found.port or self._wanted.port)
        return Started(address, boot_id(found, machine.boot_id, was), was, found.volume_id)
