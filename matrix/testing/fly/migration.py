"""Moving a machine to another host."""

from __future__ import annotations

import signal

from matrix.testing.fly.lifecycle import Lifecycle
from matrix.testing.fly.programs import IPrograms
from matrix.testing.fly.records import Machine
from matrix.testing.fly.refusals import cannot
from matrix.testing.fly.volumes import Volumes
from matrix.testing.fly.world import World

MIGRATABLE = frozenset({"started", "stopped", "suspended", "failed"})


class Migration:
    """
    The machine keeps its id, but has another address, and another volume with the same data.
    What it had in memory is gone.
    """

    def __init__(
        self, world: World, lifecycle: Lifecycle, volumes: Volumes, programs: IPrograms
    ) -> None:
        self._world = world
        self._lifecycle = lifecycle
        self._volumes = volumes
        self._programs = programs

    def may_happen(self, machine: Machine) -> bool:
        """Whether chance wants it now, of a machine that is about to be started."""
        odds = self._world.tuning.chances.migration
        return machine.state in MIGRATABLE and self._world.happens(odds, "migration", machine.id)

    def migrate(self, machine: Machine) -> None:
        """@raise Refusal: the machine is about to become something else."""
        if machine.state not in MIGRATABLE or machine.step is not None:
            raise cannot("migrate", machine.state)
        self._programs.send(machine.id, signal.SIGKILL)
        machine.memory = machine.unreachable = False
        with self._world.store.together():
            if machine.volume is not None:
                new = self._volumes.replaced(self._world.volumes[machine.volume])
                mount, *others = machine.config["mounts"]
                mounts = [{**mount, "volume": new.id}, *others]
                machine.config = {**machine.config, "mounts": mounts}
                machine.host = new.host
            machine.private_ip = self._world.new_address(machine.port)
            self._world.note(machine, "migrate", machine.state, "flyd")
            self._world.changed(machine)
        self._lifecycle.come_back(machine)
