"""C{matrix top}: whose machines are awake longest, and what for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from matrix.cli._output import clear_errors, json_option, show
from matrix.cli._server import locate, user_path
from matrix.cli._text import duration, moment, table

if TYPE_CHECKING:
    from matrix.settings import Settings


@click.command()
@click.argument("user", required=False)
@click.option(
    "--days",
    type=click.IntRange(1, 100),
    default=7,
    show_default=True,
    help="How many days to look back, today (UTC) included.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many users to show.",
)
@json_option
@click.pass_obj
def top(
    settings: Callable[[], Settings], user: str | None, days: int, limit: int, as_json: bool
) -> None:
    """Show whose machines were awake longest, and what woke them; or how it is with USER."""
    with clear_errors():
        server = locate(settings())
        if user is None:
            found = server.get(f"awake?days={days}&limit={limit}")
        else:
            found = server.get(f"{user_path(user, 'awake')}?days={days}")
    show(found, as_json, _top_lines if user is None else _user_lines)


def _top_lines(found: Mapping[str, Any]) -> list[str]:
    if not found["users"]:
        return ["no machine was awake"]
    fleet = found["fleet"].values()
    machines = sum(one["machines"] for one in fleet)
    return [*_table(found["users"]), "", f"{machines} awake now in the whole fleet"]


def _user_lines(found: Mapping[str, Any]) -> list[str]:
    if not found["by_cause"]:
        return [f"the machine of {found['email'] or found['user']} was not awake"]
    return _table([found])


def _table(users: list[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            one["email"] or one["user"],
            duration(one["seconds"]),
            _by_cause(one["by_cause"]),
            "asleep" if one["awake_since"] is None else f"since {moment(one['awake_since'])}",
            one["awake_cause"] or "",
            "" if one["last_active_at"] is None else moment(one["last_active_at"]),
        )
        for one in users
    ]
    head, *body = table(("USER", "AWAKE", "BY CAUSE", "NOW", "CAUSE", "LAST USED"), rows)
    return [click.style(head, bold=True), *body]


def _by_cause(causes: Mapping[str, Mapping[str, Any]]) -> str:
    longest = sorted(causes.items(), key=lambda item: -item[1]["seconds"])
    return ", ".join(
        f"{cause} {duration(one['seconds'])} ({one['wakes']} x)" for cause, one in longest
    )
