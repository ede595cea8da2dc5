"""What Fly's operators, and misfortune, do to machines without being asked."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any

from matrix.testing.fly.lifecycle import Lifecycle
from matrix.testing.fly.programs import IPrograms
from matrix.testing.fly.records import Machine
from matrix.testing.fly.refusals import cannot
from matrix.testing.fly.volumes import Volumes
from matrix.testing.fly.world import World

MIGRATABLE = frozenset({"started", "stopped", "suspended", "failed"})


class Operators:
    """Deeds that no call of Fly's API does."""

    def __init__(
        self, world: World, lifecycle: Lifecycle, volumes: Volumes, programs: IPrograms
    ) -> None:
        self._world = world
        self._lifecycle = lifecycle
        self._volumes = volumes
        self._programs = programs

    def deeds(self) -> Mapping[str, Callable[[Machine], Any]]:
        """By the name that the control API has for each."""
        return {
            "migrate": self.migrate,
            "unreachable": self.unreachable,
            "reachable": self.reachable,
            "lose-snapshot": self.lose_snapshot,
            "crash": self.crash,
        }

    def migrate(self, machine: Machine) -> dict[str, Any]:
        """
        To another host: the machine keeps its id, but has another address, and another volume
        with the same data. What it had in memory is gone.

        @raise Refusal: it is about to become something else.
        """
        if machine.state not in MIGRATABLE or machine.step is not None:
            raise cannot("migrate", machine.state)
        self._programs.send(machine.id, signal.SIGKILL)
        machine.memory = False
        machine.unreachable = False
        if machine.volume is not None:
            new = self._volumes.replaced(self._world.volumes[machine.volume])
            (mount, *others) = machine.config["mounts"]
            mounts = [{**mount, "volume": new.id}, *others]
            machine.config = {**machine.config, "mounts": mounts}
            machine.host = new.host
        machine.private_ip = self._world.new_address(machine.port)
        self._world.note(machine, "migrate", machine.state, "flyd")
        self._world.changed(machine)
        self._lifecycle.reboot(machine)
        return {"private_ip": machine.private_ip, "volume": machine.volume}

    def unreachable(self, machine: Machine) -> None:
        """Its host goes down, and its processes with it; its state is shown as it was."""
        machine.unreachable = True
        volume = self._world.volumes.get(machine.volume or "")
        if volume is not None:
            volume.unreachable = True
            self._world.changed_volume(volume)
        self._world.changed(machine)
        self._lifecycle.kill(machine)

    def reachable(self, machine: Machine) -> None:
        """Its host is back, and boots what had run."""
        machine.unreachable = False
        volume = self._world.volumes.get(machine.volume or "")
        if volume is not None:
            volume.unreachable = False
            self._world.changed_volume(volume)
        self._world.changed(machine)
        self._lifecycle.reboot(machine)

    def lose_snapshot(self, machine: Machine) -> None:
        """
        What a suspended machine had in memory is gone; it is shown as suspended all the same.

        @raise Refusal: it is not suspended.
        """
        if machine.state != "suspended":
            raise cannot("lose the snapshot of", machine.state)
        self._lifecycle.lose_memory(machine)

    def crash(self, machine: Machine) -> None:
        """Its program dies."""
        self._lifecycle.kill(machine)

    def processes(self) -> Mapping[str, int]:
        """The leading process of each machine that has one."""
        processes: Mapping[str, int] = self._programs.processes()
        return processes

    def reset(self) -> None:
        """Destroy all machines, volumes and apps."""
        for machine in self._world.machines.values():
            if machine.state not in ("destroying", "destroyed"):
                self._lifecycle.destroy(machine)
        for volume in list(self._world.volumes.values()):
            self._volumes.remove(volume)
        for app in self._world.apps.values():
            self._world.store.forget(app)
        self._world.apps.clear()
