"""When a machine whose data cannot be reached may begin anew from its snapshot. Pure.

A host that is full has its volumes' data all the same, and they are copied. One that is down for
good has taken them along; but it may also be back in a minute, with data that are newer than any
snapshot. So it is waited for, the longer the more there is to lose.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from matrix.model import Machine, Snapshot

DOWN_AFTER = timedelta(minutes=2)
"""For which a host may be away while nothing would be lost: restarts of hosts' daemons and of
networks are over by then, and a move costs as much."""

GONE_AFTER = timedelta(minutes=30)
"""After which a host is taken for gone, so that what its user did after the last snapshot is given
up: Fly's outages of single hosts are mostly shorter, or last for many hours."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """A machine may begin anew."""

    snapshot: Snapshot
    """From which."""
    loses_s: float
    """Seconds of use that are not in it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """It may not, or not yet."""

    why: str
    """For the operator."""


def judge(machine: Machine, newest: Snapshot | None, now: datetime) -> Rescue | Refusal:
    """
    Whether a machine that is stranded may begin anew.

    @param machine: its row; C{stranded_at} says since when.
    @param newest: its user's newest good snapshot.
    """
    if newest is None:
        return Refusal("there is no snapshot of its data")
    used = machine.last_active_at or machine.last_wake_at
    loses = timedelta(0) if used is None else max(used - newest.started_at, timedelta(0))
    since = now if machine.stranded_at is None else machine.stranded_at
    patience = GONE_AFTER if loses else DOWN_AFTER
    left = patience - (now - since)
    if left <= timedelta(0):
        return Rescue(newest, loses.total_seconds())
    lost = f"of which the last {_seconds(loses)} of its use are not part" if loses else "whole"
    return Refusal(
        f"it begins anew from its snapshot ({lost}) if it is still so in {_seconds(left)}"
    )


def _seconds(span: timedelta) -> str:
    return f"{max(1, round(span.total_seconds()))} s"
