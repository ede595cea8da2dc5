"""How far the making of a machine at Fly has come, as its row tells it. Pure.

A fresh row says that nothing was ever asked of Fly; any other, that something may have been of
which we were not told.
"""

from __future__ import annotations

import time

from matrix.machines._fly_types import FlyVolume
from matrix.model import Machine

BEGUN = "begun"
"""Calls may have been made, of which nothing is known; and since when (unix seconds)."""
COPYING = "copying"
"""As C{begun}, of a machine that is made elsewhere with a copy of the former one's volume."""
EMPTY = "volume"
"""There is a volume that we made and that no machine has had: it may be thrown away."""
COPY = "copy"
"""As C{volume}; it is a copy."""
FOUND = "found"
"""There is a volume that was found by its name, and may hold data."""
CLAIMED = "claimed"
"""There is a machine from stock, which need not be told yet whose it is."""
MADE = "made"
"""There is, or was, a machine."""
ANEW = "anew"
"""As C{made}; it was made in a former one's place, and not with a copy of what that had."""

SKEW = 60
"""Seconds by which Fly's clock may be behind ours."""

NEEDLESS = frozenset({EMPTY, COPY, CLAIMED})
"""Steps at which the row's volume holds nothing that is not elsewhere."""


def since_now(kind: str) -> str:
    """
    The step at which calls are made from now on.

    @param kind: C{begun} or C{copying}.
    """
    return f"{kind} {time.time():.3f}"


def began_at(step: str | None) -> float | None:
    """Since when calls may have been made of which nothing is known (unix seconds)."""
    kind, _, at = (step or "").partition(" ")
    return float(at) if kind in (BEGUN, COPYING) else None


def in_flight(step: str | None, longest: float) -> float:
    """
    For how many seconds something that was asked for may still come to be.

    @param longest: seconds that a call may take to be carried out whose caller is gone.
    """
    at = began_at(step)
    return 0.0 if at is None else min(at + longest - time.time(), longest)


def was_made_since(step: str | None, volume: FlyVolume) -> bool:
    """Whether a volume was made since we began, so that it is ours and holds nothing new."""
    at, made = began_at(step), volume.created_at
    if at is None or made is None or volume.attached_machine_id is not None:
        return False
    return made.timestamp() >= at - SKEW


def copies(row: Machine) -> bool:
    """Whether the volume that is to be made, or was, is a copy of the former one."""
    kind = (row.provision_step or "").partition(" ")[0]
    return row.on_trial and row.former_volume_id is not None and kind not in (BEGUN, EMPTY, ANEW)


def made(row: Machine) -> str:
    """The step at which a row is when its machine is there."""
    return ANEW if row.on_trial and not copies(row) else MADE
