"""Whether rows, machines and volumes correspond one to one, when everything sleeps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.machine import FROZEN
from tests.chaos.tally import EARLY

Row = Mapping[str, Any]

_TOLD = ("name", "state", "attached_machine_id", "created_at")

RESTS = frozenset({"suspended", "stopped"})
"""A machine that Fly would not suspend was stopped; its row need not know."""


def correspondence(
    rows: Sequence[Row], machines: Sequence[Row], volumes: Sequence[Row]
) -> Iterator[str]:
    """
    What does not correspond.

    @param rows: of C{machines} in the directory.
    @param machines: at Fly, those that are gone left out.
    @param volumes: at Fly, likewise.
    """
    by_id = {machine["id"]: machine for machine in machines}
    present = {volume["id"]: volume for volume in volumes}
    for row in rows:
        yield from _of_row(row, by_id.get(row["machine_id"]), present.get(row["volume_id"]))
    known = {row["machine_id"] for row in rows}
    for machine_id in sorted(by_id.keys() - known):
        whose = by_id[machine_id]["config"]["metadata"]
        yield f"machine {machine_id} {by_id[machine_id]['state']} belongs to no row: {whose}"
    wanted = {row["volume_id"] for row in rows}
    for volume_id in sorted(present.keys() - wanted):
        volume = present[volume_id]
        told = {name: volume[name] for name in _TOLD}
        yield f"volume {volume_id} belongs to no row: {told}"


def _of_row(row: Row, machine: Row | None, volume: Row | None) -> Iterator[str]:
    user = row["user_id"]
    if row["machine_id"] is None and row["volume_id"] is None:
        if row["state"] not in ("provisioning", "failed"):
            yield f"{user} is {row['state']} with neither a machine nor a volume"
        return
    if machine is None:
        yield f"{user}: machine {row['machine_id']} is not there; the row is {row['state']}"
        return
    if volume is None:
        yield f"{user}: volume {row['volume_id']} is not there"
    if machine["config"]["metadata"].get("matrix_user") != user:
        yield f"{user}: machine {machine['id']} is another's: {machine['config']['metadata']}"
    mounted = [mount["volume"] for mount in machine["config"].get("mounts") or ()]
    if mounted != [row["volume_id"]]:
        yield f"{user}: machine {machine['id']} mounts {mounted}, not {row['volume_id']}"
    if not {row["state"], machine["state"]} <= RESTS:
        yield f"{user}: the row is {row['state']}, the machine {machine['state']}"
    if row["lease_owner"] is not None:
        yield f"{user} is leased to {row['lease_owner']}, and sleeps"


@dataclass
class Misdeeds:
    """What machines wrote down."""

    count: Counter[str]
    faults: Sequence[str]
    """What must not be."""


def misdeeds(journals: Iterable[str], idle: float) -> Misdeeds:
    """
    What machines wrote down; copies, as a migration makes them, count once.

    @param idle: seconds of silence after which a stream is not in use any more.
    """
    count: Counter[str] = Counter()
    faults = []
    for line in sorted(set(journals)):
        told = json.loads(line)
        what = told["what"]
        if what == FROZEN and told["is_stream"] and told["silent"] >= idle - EARLY:
            what = "frozen with a silent stream"
        else:
            faults.append(line)
        count[what] += 1
    return Misdeeds(count, faults)
