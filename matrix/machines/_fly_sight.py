"""What is known of the machines at Fly without asking, and how they are looked at."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from matrix.machines._fly import FlyClient
from matrix.machines._fly_errors import FlyError
from matrix.machines._fly_patience import Patience
from matrix.machines._fly_plans import FlyPlans, Wanted
from matrix.machines._fly_types import FlyMachine
from matrix.machines.interfaces import MachineGone, Stranded
from matrix.model import Machine

NEWBORN = 10.0
"""Seconds after its making in which a machine may still be unknown to part of Fly (facts/fly.md
section 4)."""

UNREACHABLE_AGAIN = 5.0
"""Seconds after which to look again whether a host is back."""


class Sight:
    """Looks at machines, and remembers what saves another look."""

    def __init__(self, client: FlyClient, plans: FlyPlans, clock: IReactorTime) -> None:
        self.client = client
        self.plans = plans
        self.clock = clock
        self.versions: dict[str, str] = {}
        """The version of each machine that runs: a wait for its rest has to name it."""
        self.outdated: dict[str, Wanted] = {}
        """Machines that run with another config than they should have, and that."""
        self._born: dict[str, float] = {}

    def app(self, machine: Machine) -> str:
        """The app that a machine is in."""
        return machine.app or self.plans.place.app

    def born(self, machine_id: str) -> None:
        """We have just made a machine."""
        now = self.clock.seconds()
        self._born = {name: at for name, at in self._born.items() if now - at < NEWBORN}
        self._born[machine_id] = now

    def is_newborn(self, machine_id: str) -> bool:
        """Whether we made it a moment ago."""
        at = self._born.get(machine_id)
        return at is not None and self.clock.seconds() - at < NEWBORN

    def seen_started(self, found: FlyMachine) -> None:
        """It runs, as all of Fly knows by now."""
        self.versions[found.id] = found.instance_id
        self._born.pop(found.id, None)

    def forget(self, machine_id: str) -> None:
        """It rests, or is gone."""
        for known in (self.versions, self.outdated, self._born):
            known.pop(machine_id, None)

    async def look(
        self, machine: Machine, patience: Patience, *, is_there: bool = False
    ) -> FlyMachine:
        """
        A machine as Fly shows it.

        @param is_there: whether Fly has just said so.
        @raise MachineGone: there is none.
        @raise Stranded: its host does not answer, so that nothing is known.
        """
        machine_id = identified(machine)
        while True:
            try:
                found = await patience.of(
                    lambda: self.client.machine(self.app(machine), machine_id)
                )
            except FlyError as error:
                if error.reason != "not-found":
                    raise
                if not is_there and not self.is_newborn(machine_id):
                    raise self.gone(machine) from error
                await patience.pause(error)
                continue
            if found.is_gone:
                raise self.gone(machine)
            if not found.is_reachable:
                text = f"the host of Fly machine {machine_id} cannot be reached"
                raise Stranded(text, can_copy=False, retry_after=UNREACHABLE_AGAIN)
            return found

    def gone(self, machine: Machine) -> MachineGone:
        """There is no such machine."""
        self.forget(machine.machine_id or "")
        return MachineGone(f"Fly knows no machine {machine.machine_id} in {self.app(machine)}")


def identified(machine: Machine) -> str:
    """
    The machine's id.

    @raise MachineGone: none was made.
    """
    if machine.machine_id is None:
        raise MachineGone(f"user {machine.user_id} has no machine")
    return machine.machine_id
