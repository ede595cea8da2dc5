"""What goes wrong with calls to Fly during chaos: all that the emulator can do, each of it with
the calls that it makes sense for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SLOW_SECONDS = 2.0

ANY_CALL: Sequence[Mapping[str, Any]] = (
    {"kind": "row", "row": "rate"},
    {"kind": "row", "row": "timeout"},
    {"kind": "row", "row": "unavailable"},
    {"kind": "row", "row": "internal"},
    {"kind": "status", "status": 502},
    {"kind": "lost"},
    {"kind": "before"},
    {"kind": "done-status", "status": 504},
    {"kind": "slow", "seconds": SLOW_SECONDS},
)
"""What can become of any call."""

ROWS: Mapping[str, Sequence[str]] = {
    "machines.start": (
        "created", "replacing", "stopping", "still-active", "getting-replaced",
        "concurrent-update", "leased", "starting", "already-started", "host-memory", "host-cpus",
        "insufficient", "no-capacity", "governor", "deploys-disabled", "machine-limit", "quota",
        "not-found",
    ),
    "machines.suspend": ("leased", "concurrent-update", "snapshot-scheduled", "not-found"),
    "machines.stop": ("leased", "concurrent-update", "not-found"),
    "machines.get": ("not-found",),
    "machines.wait": ("not-found",),
    "machines.create": (
        "volume-of-nobody", "volume-host-full", "region-full", "insufficient", "no-capacity",
        "machine-limit", "quota", "name-violation", "volume-claimed", "volume-not-found",
    ),
    "machines.update": ("leased", "concurrent-update", "replacing", "stale-version"),
    "machines.destroy": ("leased", "not-found"),
    "metadata.*": ("stale-version", "concurrent-update"),
    "volumes.create": ("no-room-for-volume", "quota"),
    "volumes.get": ("not-found",),
    "volumes.delete": ("volume-bound",),
    "snapshots.create": ("snapshot-scheduled",),
}  # fmt: skip
"""Refusals of Fly's by the calls that may get them, those included that are not true."""

CHANCES = ("snapshot_loss", "failed_start", "migration")
"""What befalls machines though no call asks for it."""

SWITCHES: Sequence[Mapping[str, str]] = (
    {"start_while_suspending": "accepted", "start_when_started": "ok", "retry_after": "no"},
    {"start_while_suspending": "refused", "start_when_started": "conflict", "retry_after": "yes"},
)
"""Habits of Fly's that nobody knows for certain: they change at each start of the emulator."""


def faults(rate: float) -> Iterator[dict[str, Any]]:
    """
    As the emulator's control API takes them.

    @param rate: how likely each is, from 0 to 1.
    """
    for fault in ANY_CALL:
        yield {**fault, "rate": rate}
    yield {"kind": "error-in-ok", "action": "machines.start", "rate": rate}
    for action, rows in ROWS.items():
        for row in rows:
            yield {"kind": "row", "row": row, "action": action, "rate": rate}
