"""C{matrix strays}: what is at the provider and belongs to nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from matrix.cli._output import clear_errors, json_option, show
from matrix.cli._server import Server, locate
from matrix.cli._text import moment, table

if TYPE_CHECKING:
    from matrix.settings import Settings


@click.command()
@json_option
@click.pass_obj
def strays(settings: Callable[[], Settings], as_json: bool) -> None:
    """List machines and volumes at Fly that belong to no user, with why and since when.

    Those that Matrix made are deleted after MATRIX_FLY_QUARANTINE; others never are.
    """
    with clear_errors():
        found = _all(locate(settings()))
    show({"strays": found}, as_json, _lines)


def _all(server: Server) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    page = server.get("strays")
    found += page["strays"]
    while page["next"] is not None:
        page = server.get(f"strays?after={quote(page['next'], safe='')}")
        found += page["strays"]
    return found


def _lines(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            one["kind"],
            one["id"],
            one["app"],
            one["region"],
            moment(one["first_seen"]),
            one["user"] or "-",
            one["reason"],
        )
        for one in found["strays"]
    ]
    if not rows:
        return ["no strays"]
    head, *lines = table(("KIND", "ID", "APP", "REGION", "SINCE", "USER", "WHY"), rows)
    return [click.style(head, bold=True), *lines]
