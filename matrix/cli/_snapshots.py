"""C{matrix snapshot} and C{matrix snapshots}: have one taken, and see what there is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from matrix.cli._output import clear_errors, json_option, show
from matrix.cli._server import CommandError, locate, user_path
from matrix.cli._text import clean, duration, moment, size, table

if TYPE_CHECKING:
    from matrix.settings import Settings

NAME_LENGTH = 8
"""Characters of a snapshot's name that restic shows, and takes for the whole."""

STAGES = {"wake": "waking", "quiesce": "preparing", "backup": "taking"}

OFF = "there are no snapshots here: see docs/snapshots.md"


@click.command()
@click.argument("user")
@json_option
@click.pass_obj
def snapshot(settings: Callable[[], Settings], user: str, as_json: bool) -> None:
    """Have a snapshot of USER's data taken now, and wait until it is safe."""
    with clear_errors():
        last = _follow(locate(settings()).follow(user_path(user, "snapshot")), as_json)
        if last["kind"] == "failed":
            raise CommandError(f"no snapshot: {clean(str(last['reason']))}")


@click.command()
@click.argument("user", required=False)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="How many to show.",
)
@json_option
@click.pass_obj
def snapshots(
    settings: Callable[[], Settings], user: str | None, limit: int, as_json: bool
) -> None:
    """List USER's snapshots, newest first; or how it is with everybody's, trouble first."""
    with clear_errors():
        server = locate(settings())
        path = "snapshots" if user is None else user_path(user, "snapshots")
        found = server.get(f"{path}?limit={limit}")
    show(found, as_json, _standing_lines if user is None else _user_lines)


def _follow(lines: Iterator[Any], as_json: bool) -> Mapping[str, Any]:
    """
    Show how it goes; the last line.

    @raise CommandError: it is not told how it ended.
    """
    last: Mapping[str, Any] = {}
    progress = _Progress(not as_json and sys.stderr.isatty())
    try:
        for last in lines:
            if as_json:
                click.echo(json.dumps(last))
            elif last["kind"] == "progress":
                progress.show(last)
    finally:
        progress.end()
    if last.get("kind") in (None, "progress"):
        raise CommandError(
            "Matrix broke off before the snapshot was done; it goes on: see matrix snapshots USER"
        )
    if not as_json and last["kind"] != "failed":
        click.echo(_outcome(last))
    return last


class _Progress:
    """One line on a terminal that is written over and over."""

    def __init__(self, on: bool) -> None:
        self._on = on
        self._shown = False

    def show(self, at: Mapping[str, Any]) -> None:
        if not self._on:
            return
        done, total = at["bytes_done"], at["bytes_total"]
        amount = f" {size(done)} of {size(total)}" if total else f" {size(done)}" if done else ""
        stage = STAGES.get(at["stage"], clean(str(at["stage"])))
        click.echo(f"\r\x1b[K{stage}{amount}", err=True, nl=False)
        self._shown = True

    def end(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def _outcome(last: Mapping[str, Any]) -> str:
    if last["kind"] == "unchanged":
        return "nothing has changed since the last snapshot"
    added, total = size(last["bytes_added"]), size(last["bytes_total"])
    text = f"snapshot {last['snapshot'][:NAME_LENGTH]}: {added} new, {total} in all"
    return f"{text}; some files could not be read" if last["partial"] else text


def _user_lines(found: Mapping[str, Any]) -> list[str]:
    rows = [_row(one) for one in found["snapshots"]]
    if not rows:
        return ["no snapshots" if found["on"] else OFF]
    head, *lines = table(("STARTED", "SNAPSHOT", "CAUSE", "TOOK", "NEW", "IN ALL", ""), rows)
    return [click.style(head, bold=True), *lines]


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    good = one["status"] == "done"
    notes = [one["reason"] or ""] if one["status"] == "failed" else []
    notes += ["some files could not be read"] if one["partial"] else []
    notes += [f"tried {moment(one['verified_at'])}"] if one["verified_at"] else []
    return (
        moment(one["started_at"]),
        one["snapshot"][:NAME_LENGTH] if good else one["status"],
        one["cause"],
        "" if one["seconds"] is None else duration(one["seconds"]),
        size(one["bytes_added"]) if good else "",
        size(one["bytes_total"]) if good else "",
        "; ".join(notes),
    )


def _standing_lines(found: Mapping[str, Any]) -> list[str]:
    rows = [_standing(one) for one in found["users"]]
    if not rows:
        return ["no snapshots yet" if found["on"] else OFF]
    head, *lines = table(("USER", "NEWEST", "SNAPSHOT", "IN ALL", "FAILURES", ""), rows)
    return [click.style(head, bold=True), *lines]


def _standing(one: Mapping[str, Any]) -> tuple[str, ...]:
    newest = one["newest"]
    return (
        one["email"] or one["user"],
        "never" if newest is None else moment(newest["finished_at"]),
        "" if newest is None else newest["snapshot"][:NAME_LENGTH],
        "" if newest is None else size(newest["bytes_total"]),
        str(one["failures"] or ""),
        one["reason"] or "",
    )
