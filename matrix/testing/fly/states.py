"""The states that a machine of Fly's can be in, and the ways between them. Pure.

Facts/fly.md section 4, after both of Fly's diagrams. Beyond these, a forced destruction is
possible at any time, and a start interrupts a suspension.
"""

from __future__ import annotations

from collections.abc import Mapping

EDGES: Mapping[str, frozenset[str]] = {
    "created": frozenset({"starting", "stopping", "updating", "destroying"}),
    "starting": frozenset({"started", "failed", "destroying"}),
    "started": frozenset({"stopping", "suspending", "restarting", "updating", "destroying"}),
    "suspending": frozenset({"suspended", "starting", "destroying"}),
    "suspended": frozenset({"starting", "stopping", "replacing", "destroying"}),
    "stopping": frozenset({"stopped", "failed", "destroying"}),
    "stopped": frozenset({"starting", "replacing", "destroying"}),
    "restarting": frozenset({"starting", "destroying"}),
    "failed": frozenset({"starting", "stopping", "replacing", "destroying"}),
    "updating": frozenset({"starting", "stopped", "created", "destroying"}),
    "replacing": frozenset({"stopped", "destroying"}),
    "destroying": frozenset({"destroyed"}),
    "destroyed": frozenset(),
}

SETTLED = frozenset({"created", "started", "stopped", "suspended", "failed", "destroyed"})
"""In which a machine stays until somebody wants something else."""

GONE = frozenset({"destroying", "destroyed"})

WAITABLE = frozenset({"started", "stopped", "suspended", "destroyed", "failed", "settled"})
"""What can be waited for."""


class ImpossibleChange(AssertionError):
    """The emulator is at fault: there is no such way."""


def check_change(old: str, new: str) -> None:
    """
    @raise ImpossibleChange: no machine goes from the one state to the other.
    """
    if new not in EDGES[old]:
        raise ImpossibleChange(f"no machine goes from {old} to {new}")
