"""The audit of a chaos finds what does not correspond."""

from __future__ import annotations

import json
from typing import Any
from unittest import TestCase

from tests.chaos.audit import correspondence, misdeeds
from tests.chaos.machine import FROZEN

ROW = {
    "user_id": "alice",
    "machine_id": "m1",
    "volume_id": "v1",
    "state": "suspended",
    "lease_owner": None,
}
CONFIG = {"metadata": {"matrix_user": "alice"}, "mounts": [{"volume": "v1"}]}
MACHINE = {"id": "m1", "state": "suspended", "config": CONFIG}
VOLUME = {
    "id": "v1", "name": "u_alice", "state": "created", "attached_machine_id": "m1",
    "created_at": "2026-11-24T02:47:05Z",
}  # fmt: skip


class CorrespondenceTests(TestCase):
    def found(self, row: Any = ROW, machine: Any = MACHINE, volume: Any = VOLUME) -> list[str]:
        machines, volumes = ([one] if one else [] for one in (machine, volume))
        return [*correspondence([row] if row else [], machines, volumes)]

    def test_one_of_each_is_as_it_should_be(self) -> None:
        self.assertEqual(self.found(), [])
        self.assertEqual(self.found(machine=MACHINE | {"state": "stopped"}), [])

    def test_a_user_who_never_came_so_far(self) -> None:
        never = ROW | {"machine_id": None, "volume_id": None, "state": "failed"}
        self.assertEqual(self.found(never, None, None), [])

    def test_whatever_does_not_correspond_is_told(self) -> None:
        cases: list[tuple[str, dict[str, Any]]] = [
            ("belongs to no row", {"row": None}),
            ("machine m1 is not there", {"machine": None}),
            ("volume v1 is not there", {"volume": None}),
            ("is another's", {"machine": MACHINE | {"config": CONFIG | {"metadata": {}}}}),
            ("mounts []", {"machine": MACHINE | {"config": CONFIG | {"mounts": []}}}),
            ("the machine started", {"machine": MACHINE | {"state": "started"}}),
            ("the row is running", {"row": ROW | {"state": "running"}}),
            ("is leased to x", {"row": ROW | {"lease_owner": "x"}}),
            ("with neither", {"row": ROW | {"machine_id": None, "volume_id": None}}),
        ]
        for text, change in cases:
            self.assertIn(text, "\n".join(self.found(**change)))


class MisdeedsTests(TestCase):
    def test_a_silent_stream_is_counted_and_use_is_a_fault(self) -> None:
        silent = {"what": FROZEN, "is_stream": True, "silent": 9.0}
        lines = [json.dumps(silent | change) for change in ({}, {}, {"silent": 1.0})]
        lines.append(json.dumps(silent | {"is_stream": False}))
        found = misdeeds(lines, idle=5.0)
        self.assertEqual(found.count, {"frozen with a silent stream": 1, FROZEN: 2})
        self.assertCountEqual(found.faults, lines[2:])
