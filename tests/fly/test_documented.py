"""docs/emulator.md has every setting, every fault and every control call."""

from __future__ import annotations

from pathlib import Path

from matrix.testing.fly.case import FlyCase
from matrix.testing.fly.faults import Kind
from matrix.testing.fly.tuning import CHOICES, Tuning

GUIDE = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text("utf-8")


class DocumentedTests(FlyCase):
    def test_settings(self) -> None:
        for name in Tuning().shown():
            self.assertIn(f"`{name}`", GUIDE)
        for choices in CHOICES.values():
            for choice in choices:
                self.assertIn(f"`{choice}`", GUIDE)

    def test_kinds_of_faults(self) -> None:
        for kind in Kind:
            self.assertIn(f"\n| `{kind}` |", GUIDE)

    def test_control_calls(self) -> None:
        for method, rule in self.parts.control.paths:
            place = rule.replace("/<what>", "").replace("<int:number>", "NUMBER")
            place = place.replace("<machine>", "ID").replace("/NUMBER", "[/NUMBER]")
            self.assertIn(f"`{method} {place}", GUIDE)
        for deed in ("migrate", "unreachable", "reachable", "lose-snapshot", "crash"):
            self.assertIn(f"/{deed}`", GUIDE)
