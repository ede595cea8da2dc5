"""Tests that docs/ shows the state machines as they are, and for how they are drawn."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.trial.unittest import SynchronousTestCase

from matrix.testing.diagrams import Diagram, draw, mermaid, page, stale

SCRIPT = Path(__file__).parent.parent / "script" / "diagrams.py"


class Lamp(Protocol):
    def press(self) -> None:
        """Somebody presses the button."""

    def smash(self) -> None:
        """Somebody smashes it."""


def lamp() -> object:
    """A machine with a loop back, a dead end, and a name that is no identifier."""
    builder = TypeMachineBuilder(Lamp, object)
    dark, lit, broken = builder.state("dark"), builder.state("well-lit"), builder.state("broken")
    dark.upon(Lamp.press).to(lit).returns(None)
    lit.upon(Lamp.press).to(dark).returns(None)
    lit.upon(Lamp.smash).to(broken).returns(None)
    broken.upon(Lamp.press).loop().returns(None)
    return builder.build()


def script() -> ModuleType:
    """script/diagrams.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("diagrams_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class CommittedTests(SynchronousTestCase):
    def test_every_committed_page_is_up_to_date(self) -> None:
        self.assertEqual(stale(script().DIAGRAMS), [], "run script/diagrams")

    def test_check_says_so_too(self) -> None:
        self.assertEqual(script().main(["--check"]), 0)

    def test_other_arguments_are_refused(self) -> None:
        self.assertEqual(script().main(["--draw"]), 2)


class DrawingTests(SynchronousTestCase):
    def test_arrows_beginning_and_end(self) -> None:
        self.assertEqual(
            mermaid(lamp()).splitlines(),
            [
                "stateDiagram-v2",
                "    [*] --> dark",
                "    broken --> broken : press",
                "    dark --> well_lit : press",
                "    well_lit --> broken : smash",
                "    well_lit --> dark : press",
                "    broken --> [*]",
            ],
        )

    def test_a_page_is_stale_until_it_is_drawn(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            output = Path(place) / "docs" / "lamp.md"
            diagram = Diagram("A lamp", lamp(), output, "It shines.")
            self.assertEqual(stale([diagram]), [output])
            draw([diagram])
            self.assertEqual(stale([diagram]), [])
            self.assertEqual(output.read_text(), page(diagram))
            self.assertIn("| well-lit | smash | broken |", page(diagram))
