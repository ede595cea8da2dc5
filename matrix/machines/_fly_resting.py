"""Bringing a machine at Fly to rest, or to its end, and seeing that it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from twisted.logger import Logger

from matrix.machines._fly_errors import FlyError, Verdict
from matrix.machines._fly_patience import Patience
from matrix.machines._fly_plans import Wanted
from matrix.machines._fly_sight import Sight, identified
from matrix.machines._fly_types import FlyMachine
from matrix.machines._recall import Recall
from matrix.machines.interfaces import MachineGone, ProviderError, Recalled
from matrix.model import Machine

SUSPEND_TRIES = 3
"""As often as Fly may refuse to suspend a machine that runs, before it is stopped instead."""

NEVER = "auto_stop_machines is off in the template: machines are never put to sleep"

_RESTS = frozenset({"created", "stopped", "suspended", "failed", "destroyed"})
_ON_ITS_WAY = {"suspended": "suspending", "stopped": "stopping"}

_log = Logger()

Ask = Callable[[str, str], Awaitable[None]]
"""One of the client's calls, with app and machine id."""


class Resting:
    """One attempt to bring one machine to rest."""

    def __init__(
        self, sight: Sight, patience: Patience, machine: Machine, recall: Recall | None = None
    ) -> None:
        self._recall = recall or Recall()
        self._sight = sight
        self._client = sight.client
        self._patience = patience
        self._machine = machine
        self._app = sight.app(machine)
        self._id = identified(machine)

    async def suspend(self) -> None:
        """
        Suspend it, or stop it where the template or Fly will not have it suspended. One with
        an outdated config is stopped too, and gets the present one.

        @raise Recalled: it is wanted, and runs on.
        @raise ProviderError: it runs on.
        """
        on_idle = self._sight.plans.on_idle(self._machine.size)
        if on_idle == "off":
            raise ProviderError(NEVER)
        if self._id in self._sight.outdated:
            await self._renew()
        elif on_idle == "stop" or not await self._rest(self._client.suspend, "suspended"):
            await self.stop()

    async def stop(self, *, beyond_recall: bool = True) -> None:
        """
        Stop it.

        @param beyond_recall: whether this is all that is asked of Fly, so that others may start
            it again once Fly has agreed.
        @raise ProviderError: it runs on.
        """
        if not await self._rest(self._client.stop, "stopped", beyond_recall=beyond_recall):
            raise ProviderError(f"Fly does not stop machine {self._id}")

    async def destroy(self) -> None:
        """
        End it, and its volume with it.

        @raise ProviderError: something is left.
        """
        await self._patience.of(lambda: self._client.destroy(self._app, self._id))
        self._sight.forget(self._id)
        machine = FlyMachine(id=self._id, state="")
        while True:
            try:
                await self._client.wait(self._app, machine, "destroyed", self._patience.left)
            except FlyError as error:
                if error.reason == "not-found":
                    return
                if error.verdict is not Verdict.SOON:
                    raise
                await self._patience.pause(error)
            else:
                return

    async def _renew(self) -> None:
        wanted = self._sight.outdated.pop(self._id)
        await self.stop(beyond_recall=False)
        if self._recall.asked:
            return
        found = await self._sight.look(self._machine, self._patience)
        if found.state != "stopped" or found.volume_id is None:
            return
        try:
            config = wanted.config(found.volume_id)
            await self._client.update_machine(self._app, found, config)
        except FlyError as error:  # it sleeps all the same, and the next start sees to it
            _log.warn(
                "{user}: machine {id} keeps its config: {error}",
                user=self._machine.user_id, id=self._id, error=error,
            )  # fmt: skip

    async def _rest(self, ask: Ask, wanted: str, *, beyond_recall: bool = True) -> bool:
        """
        Whether it rests now, in the state that is wanted or in another, or is about to and
        wanted already; if not, Fly refuses to bring it there.

        @param beyond_recall: see L{stop}.
        @raise Recalled: it was wanted before Fly was asked, or had agreed.
        """
        version = self._sight.versions.get(self._id)
        tries = 0
        while True:
            self._recall.check()
            try:
                await ask(self._app, self._id)
                break
            except FlyError as error:
                if error.reason == "not-found":
                    return True
                if error.verdict is Verdict.PERMANENT:
                    raise
                if error.reason != "rate":
                    found = await self._look()
                    if found is None or found.state in _RESTS:
                        return True
                    version = found.instance_id
                    if found.state == _ON_ITS_WAY[wanted]:
                        break
                    tries += found.state == "started" and error.verdict is not Verdict.AMBIGUOUS
                    if tries >= SUSPEND_TRIES:
                        return False
                await self._recall.unless_asked(self._patience.pause(error))
        if beyond_recall:
            self._recall.begin()
        with suppress(Recalled):  # a start interrupts it
            await self._recall.unless_asked(self._verify(wanted, version))
        self._sight.forget(self._id)
        return True

    async def _verify(self, wanted: str, version: str | None) -> None:
        """Wait until it rests."""
        while True:
            if version is None:
                found = await self._look()
                if found is None or found.state in _RESTS:
                    return
                version = found.instance_id
            machine = FlyMachine(id=self._id, state="", instance_id=version)
            try:
                await self._client.wait(self._app, machine, wanted, self._patience.left)
            except FlyError as error:
                if error.reason == "not-found":
                    return
                if error.verdict is not Verdict.SOON:
                    raise
                found = await self._look()
                if found is None or found.state in _RESTS:
                    return
                if found.state in ("started", "starting"):
                    raise ProviderError(f"Fly machine {self._id} runs on") from error
                version = found.instance_id
                await self._patience.pause(error)
            else:
                return

    async def _look(self) -> FlyMachine | None:
        try:
            return await self._sight.look(self._machine, self._patience)
        except MachineGone:
            return None


async def remove(sight: Sight, patience: Patience, machine: Machine, wanted: Wanted) -> None:
    """
    Destroy all that a user has at Fly, known from the row or not.

    @param wanted: knows how it is marked and named.
    @raise ProviderError: something is left.
    """
    if machine.provision_step is None and machine.machine_id is None:
        return  # nothing was ever asked for
    client, app = sight.client, sight.app(machine)
    try:
        found = await patience.of(lambda: client.machines(app, **wanted.owner))
        volumes = await patience.of(lambda: client.volumes(app))
    except FlyError as error:
        if error.reason == "not-found":
            return  # there is no app
        raise
    ids = {each.id for each in found if each.kind != "gone"}
    theirs = {machine.volume_id, machine.former_volume_id, *(each.volume_id for each in found)}
    for machine_id in sorted(ids | ({machine.machine_id} if machine.machine_id else set())):
        await Resting(sight, patience, _with(machine, machine_id)).destroy()
    for volume in volumes:
        if volume.name == wanted.volume_name or volume.id in theirs:
            await _delete(sight, patience, app, volume.id)


def _with(machine: Machine, machine_id: str) -> Machine:
    return Machine(
        machine.user_id, machine.provider, machine.state, machine.generation,
        app=machine.app, machine_id=machine_id,
    )  # fmt: skip


async def _delete(sight: Sight, patience: Patience, app: str, volume_id: str) -> None:
    """Delete a volume that its machine may still be letting go of."""
    while True:
        try:
            await patience.of(lambda: sight.client.delete_volume(app, volume_id))
        except FlyError as error:
            if error.reason != "volume-bound" and error.verdict is not Verdict.AMBIGUOUS:
                raise
            await patience.pause(error)
        else:
            return
