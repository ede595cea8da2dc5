"""The C{matrix} command and its subcommands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import matrix
from matrix.cli._access import sessions, users
from matrix.cli._machine import machine
from matrix.cli._output import clear_errors, json_option, show
from matrix.cli._restore import restore
from matrix.cli._server import CommandError, Server, locate, user_path
from matrix.cli._snapshots import snapshot, snapshots
from matrix.cli._strays import strays
from matrix.cli._text import details, duration, facts, moment, table
from matrix.cli._top import top
from matrix.cli._upkeep import upkeep

if TYPE_CHECKING:
    from matrix.settings import Settings

ISSUER_FOLDER = "issuer"
"""Where in the state directory embedded mode's token issuer keeps its keys."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(matrix.__version__, prog_name="matrix", message="%(prog)s %(version)s")
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    help="Read settings from this file too, as twistd matrix --env-file does.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="The state directory of an embedded Matrix.  [default: MATRIX_STATE_DIR, or .matrix]",
)
@click.pass_context
def main(context: click.Context, env_file: Path | None, state_dir: Path | None) -> None:
    """Look at a running Matrix, say who may come in, and wake or suspend users' machines.

    USER is a user id, an e-mail address, or the part before its @ if only one user has it.
    """
    context.obj = lambda: _settings(env_file, state_dir)


main.add_command(users)
main.add_command(sessions)
main.add_command(machine)
main.add_command(restore)
main.add_command(upkeep)
main.add_command(snapshot)
main.add_command(snapshots)
main.add_command(top)
main.add_command(strays)


@main.command()
@click.argument("user")
@click.option(
    "--life",
    type=click.FloatRange(min=0, min_open=True, max=365 * 86400),
    metavar="SECONDS",
    help="How long the token is valid.  [default: 3600]",
)
@json_option
@click.pass_obj
def token(settings: Callable[[], Settings], user: str, life: float | None, as_json: bool) -> None:
    """Make an access token for USER (embedded mode only)."""
    with clear_errors():
        minted = _mint(settings(), user, life)
    show({"user": user, "token": minted}, as_json, lambda found: [found["token"]])


@main.command()
@json_option
@click.pass_obj
def status(settings: Callable[[], Settings], as_json: bool) -> None:
    """Say what runs, where it listens, and how its machines are."""
    with clear_errors():
        server = locate(settings())
        found = server.get("status")
    show(found, as_json, lambda found: _status_lines(found, server))


@main.command()
@click.argument("user")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="How many events to show.",
)
@json_option
@click.pass_obj
def events(settings: Callable[[], Settings], user: str, limit: int, as_json: bool) -> None:
    """Show why the machine of USER woke, slept or changed, newest first."""
    with clear_errors():
        found = locate(settings()).get(f"{user_path(user, 'events')}?limit={limit}")
    show(found, as_json, _event_lines)


@main.command()
@click.argument("user")
@json_option
@click.pass_obj
def wake(settings: Callable[[], Settings], user: str, as_json: bool) -> None:
    """Wake the machine of USER and wait until it answers."""
    _control(settings, user, "wake", as_json)


@main.command()
@click.argument("user")
@json_option
@click.pass_obj
def suspend(settings: Callable[[], Settings], user: str, as_json: bool) -> None:
    """Suspend the machine of USER: it sleeps until the next request."""
    _control(settings, user, "suspend", as_json)


def _control(settings: Callable[[], Settings], user: str, verb: str, as_json: bool) -> None:
    with clear_errors():
        found = locate(settings()).post(user_path(user, verb))
    show(found, as_json, _machine_lines)


def _machine_lines(found: Mapping[str, Any]) -> list[str]:
    name = found["email"] or found["user"]
    return facts([(f"{name}:", f"{found['state'] or 'no machine'}, {found['ms']} ms")])


def _event_lines(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (moment(one["at"]), one["kind"], one["cause"], details(one["detail"]))
        for one in found["events"]
    ]
    if not rows:
        return ["no events"]
    head, *lines = table(("TIME", "EVENT", "CAUSE", "DETAIL"), rows)
    return [click.style(head, bold=True), *lines]


def _status_lines(found: Mapping[str, Any], server: Server) -> list[str]:
    stale, machines = found["directory_stale_s"], found["machines"]
    if machines is None:
        count = "unknown: the database cannot be reached"
    else:
        states = ", ".join(f"{number} {state}" for state, number in machines.items())
        count = f"{sum(machines.values())} ({states})" if machines else "none yet"
    workers = found.get("workers") or []
    up = f"{sum(worker['up'] for worker in workers)} of {len(workers)} up"
    lines = facts(
        [
            *found["listeners"].items(),
            ("admin API", server.url),
            *([("workers", up)] if workers else []),
            ("provider", found["provider"]),
            ("machines", count),
            ("connections", str(found["open_connections"])),
            ("directory", "up to date" if stale is None else f"stale for {duration(stale)}"),
        ]
    )
    head = f"Matrix {found['version']}, up {duration(found['uptime_s'])}"
    return [click.style(head, bold=True), *lines]


def _settings(env_file: Path | None, state_dir: Path | None) -> Settings:
    # Loaded only by the commands that need them: pydantic takes most of a command's time.
    from matrix import settings

    return settings.load(env_file, state_dir=state_dir)


def _mint(settings: Settings, user: str, life: float | None) -> str:
    folder = settings.state_dir / ISSUER_FOLDER
    if settings.issuer is not None:
        raise CommandError(
            f"tokens come from {settings.issuer}: sign in there; "
            "Matrix makes them in embedded mode only"
        )
    if not folder.is_dir():
        raise CommandError(
            f"no embedded Matrix was ever started in {settings.state_dir.absolute()}: "
            "start one with script/server, or name its state directory with --state-dir"
        )
    from matrix.testing.issuer import LocalIssuer

    return LocalIssuer.open(folder).mint(user, life=life)
