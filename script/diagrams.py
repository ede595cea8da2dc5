"""Draw docs/ pages from the state machines in the code; run it by script/diagrams.

With --check nothing is written, and stale pages make it fail.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matrix.machines.lifecycle import LIFECYCLE
from matrix.router.residency import residency
from matrix.testing.diagrams import Diagram, draw, stale

DOCS = Path(__file__).resolve().parent.parent / "docs"

DIAGRAMS = [
    Diagram(
        title="The life of a machine",
        machine=LIFECYCLE,
        output=DOCS / "lifecycle.md",
        about="The states of a row in `machines`, and what may follow what: every change of "
        "a row asks `next_state` in `matrix/machines/lifecycle.py` first.",
    ),
    Diagram(
        title="Many callers, one wake",
        machine=residency,
        output=DOCS / "residency.md",
        about="What one router knows of one machine, and how requests that wait for it share "
        "one attempt to wake it. The table is in `matrix/router/residency.py`.",
    ),
]


def main(arguments: list[str]) -> int:
    """Draw, or check."""
    if arguments not in ([], ["--check"]):
        print("usage: script/diagrams [--check]", file=sys.stderr)
        return 2
    old = stale(DIAGRAMS)
    for path in old:
        print(f"{path.relative_to(DOCS.parent)} {'is stale' if arguments else 'drawn'}")
    if arguments:
        return 1 if old else 0
    draw(DIAGRAMS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
