"""C{matrix upkeep}: with whose snapshots something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from matrix.cli._output import clear_errors, json_option, show
from matrix.cli._server import locate
from matrix.cli._text import moment, table

if TYPE_CHECKING:
    from matrix.settings import Settings


@click.command()
@json_option
@click.pass_obj
def upkeep(settings: Callable[[], Settings], as_json: bool) -> None:
    """Show whose snapshots could not be thinned out, checked, tried or erased, and why."""
    with clear_errors():
        found = locate(settings()).get("upkeep")
    show(found, as_json, _lines)


def _lines(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            one["user"],
            one["chore"],
            str(one["failures"]),
            "never" if one["scrubbed_at"] is None else moment(one["scrubbed_at"]),
            one["trouble"],
        )
        for one in found["troubled"]
    ]
    if not rows:
        return ["no trouble"]
    head, *lines = table(("USER", "CHORE", "FAILED", "LAST CHECKED", "WHY"), rows)
    return [click.style(head, bold=True), *lines]
