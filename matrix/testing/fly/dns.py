"""What the names of Fly's private network stand for. Pure."""

from __future__ import annotations

import re

from matrix.testing.fly.records import Machine
from matrix.testing.fly.world import World

_NAME = re.compile(
    r"(?:(?P<machine>[0-9a-f]+)\.vm\.|(?P<region>[a-z]{3})\.)?(?P<app>[a-z0-9-]+)\.internal\.?"
)


def lookup(world: World, name: str) -> list[str]:
    """
    The addresses of C{<machine>.vm.<app>.internal}, C{<region>.<app>.internal} or
    C{<app>.internal}: those of started machines, no others.
    """
    found = _NAME.fullmatch(name.lower())
    if found is None:
        return []

    def is_meant(machine: Machine) -> bool:
        return (
            machine.state == "started"
            and not machine.unreachable
            and machine.app == found["app"]
            and found["machine"] in (None, machine.id)
            and found["region"] in (None, machine.region)
        )

    return [machine.private_ip for machine in world.machines.values() if is_meant(machine)]
