"""What Fly's operators, and misfortune, do to machines without being asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matrix.testing.fly.lifecycle import Lifecycle
from matrix.testing.fly.migration import Migration
from matrix.testing.fly.programs import IPrograms
from matrix.testing.fly.records import Machine
from matrix.testing.fly.refusals import cannot
from matrix.testing.fly.volumes import Volumes
from matrix.testing.fly.world import World


class Operators:
    """Deeds that no call of Fly's API does."""

    def __init__(
        self,
        world: World,
        lifecycle: Lifecycle,
        volumes: Volumes,
        programs: IPrograms,
        migration: Migration,
    ) -> None:
        self._world = world
        self._lifecycle = lifecycle
        self._migration = migration
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
        To another host.

        @raise Refusal: it is about to become something else.
        """
        self._migration.migrate(machine)
        return {"private_ip": machine.private_ip, "volume": machine.volume}

    def unreachable(self, machine: Machine) -> None:
        """Its host goes down, and its processes with it; its state is shown as it was."""
        self._set_reach(machine, False)
        self._lifecycle.kill(machine)

    def reachable(self, machine: Machine) -> None:
        """Its host is back, and boots what had run."""
        self._set_reach(machine, True)
        self._lifecycle.come_back(machine)

    def _set_reach(self, machine: Machine, reachable: bool) -> None:
        machine.unreachable = not reachable
        volume = self._world.volumes.get(machine.volume or "")
        if volume is not None:
            volume.unreachable = not reachable
            self._world.changed_volume(volume)
        self._world.changed(machine)

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
