"""Which boot a machine is in, told from its events: Fly has no name for it. Pure.

A resume looks like a boot, but for what went before: C{suspended}. That a suspended machine has
lost its memory and boots all the same cannot be told (facts/fly.md section 5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from matrix.machines._fly_types import FlyEvent, FlyMachine
from matrix.model import MachineState

_UP = ("starting", "started")
_FROZEN = ("suspending", "suspended")


@dataclass(frozen=True, slots=True)
class Boot:
    """The latest boot, as far as the events that there are go back."""

    id: str | None
    """C{None} if it was before them."""
    was: MachineState | None
    """What the machine was before it was started last, by a boot or a resume."""


def latest(events: Iterable[FlyEvent]) -> Boot:
    """
    The latest boot.

    @param events: as Fly has them, the newest first.
    """
    boot: str | None = None
    was: MachineState | None = None
    before = ""
    for event in reversed(tuple(events)):
        if event.status in _UP and before not in _UP:
            was = _rest(before)
            if was not in (None, MachineState.SUSPENDED):
                boot = event.id or str(event.timestamp)
        before = event.status or before
    return Boot(boot, was)


def _rest(status: str) -> MachineState | None:
    if not status:
        return None  # it is older than what is listed
    if status in _FROZEN:
        return MachineState.SUSPENDED
    return MachineState.PROVISIONING if status == "created" else MachineState.STOPPED


def boot_id(found: FlyMachine, known: str | None, was: MachineState) -> str:
    """
    A name for the boot that a machine is in.

    @param known: the one that it was in when it was last seen.
    @param was: what it was before it was started.
    """
    boot = latest(found.events).id
    if boot is not None:
        return boot
    if known is not None and was in (MachineState.SUSPENDED, MachineState.RUNNING):
        return known
    newest = max((event.timestamp for event in found.events), default=0)
    return f"{found.instance_id}-{newest}"
