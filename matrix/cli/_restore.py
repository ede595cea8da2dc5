"""C{matrix restore}: a user's snapshot brought back, onto their machine or to a folder here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from matrix.cli._output import clear_errors, json_option, show
from matrix.cli._server import CommandError, locate, user_path
from matrix.cli._text import facts, moment
from matrix.model import UserId, user_id

if TYPE_CHECKING:
    from matrix.settings import Settings


@click.command()
@click.argument("user")
@click.option("--at", metavar="TIME", help="The newest snapshot at or before this time (ISO 8601).")
@click.option("--snapshot", metavar="ID", help="The snapshot of this id, or of its beginning.")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Restore to this folder of this box, which is made. Run it on the box, as its Matrix.",
)
@click.option("--file", metavar="PATH", help="With --to: only this file or folder, into DIR.")
@click.option(
    "--discard",
    is_flag=True,
    help="Do not put what the machine has now into a snapshot first: for one that cannot start.",
)
@click.option("--yes", is_flag=True, help="Do not ask before a machine's data are replaced.")
@json_option
@click.pass_obj
def restore(
    settings: Callable[[], Settings],
    user: str,
    at: str | None,
    snapshot: str | None,
    to: Path | None,
    file: str | None,
    discard: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Bring a snapshot of USER back: the newest, unless told otherwise.

    Without --to it takes the place of what their machine has. That is put in a snapshot first, and
    kept aside until the machine answers with what was restored.
    """
    if at is not None and snapshot is not None:
        raise click.UsageError("--at and --snapshot each say which snapshot: give one")
    if file is not None and to is None:
        raise click.UsageError("--file needs --to DIR: where the file is to go")
    before = None if at is None else _time(at)
    if to is not None:
        with clear_errors():
            found = _to_folder(settings(), user, before, snapshot, to, file)
        show(found, as_json, _folder_lines)
        return
    if not yes:
        click.confirm(f"Replace the data of {user}'s machine?", abort=True, err=True)
    query = {
        "at": before and before.isoformat(),
        "snapshot": snapshot,
        "discard": "true" if discard else None,
    }
    asked = urlencode({name: value for name, value in query.items() if value})
    with clear_errors():
        found = locate(settings()).post(f"{user_path(user, 'restore')}?{asked}")
    show(found, as_json, _machine_lines)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time: write 2026-11-23, '2026-11-23 14:30' or 2026-11-23T14:30Z",
            param_hint="--at",
        ) from None


def _to_folder(
    settings: Settings,
    user: str,
    before: datetime | None,
    snapshot: str | None,
    to: Path,
    file: str | None,
) -> dict[str, object]:
    from matrix.daemon.volume import COPIES
    from matrix.router.vault import open_shelf
    from matrix.snapshots import NoSuchSnapshot, ResticFailed, choose

    who = _identified(settings, user)
    target = to.absolute()
    try:
        if file is not None:
            target.mkdir(parents=True, exist_ok=True)
            target = target / Path(file.rstrip("/")).name
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                target.rmdir()  # fails if there is something in it
        shelf = open_shelf(settings, who)
        chosen = choose(shelf.snapshots(), before, snapshot)
        shelf.bring(chosen, target, COPIES, file)
    except (ResticFailed, NoSuchSnapshot) as error:
        raise CommandError(str(error)) from None
    return {
        "user": who,
        "snapshot": chosen.id,
        "at": chosen.at.isoformat(),
        "to": str(target),
    }


def _identified(settings: Settings, user: str) -> UserId:
    """Whose snapshots are meant; for a user id nobody needs to be asked."""
    try:
        return user_id(user)
    except ValueError:
        return UserId(str(locate(settings).get(user_path(user))["id"]))


def _folder_lines(found: Mapping[str, Any]) -> list[str]:
    return facts([(f"{found['to']}:", f"as of {moment(found['at'])} ({found['snapshot'][:8]})")])


def _machine_lines(found: Mapping[str, Any]) -> list[str]:
    told = f"{found['state']}, as of {moment(found['at'])} ({found['snapshot'][:8]})"
    return facts([(f"{found['email'] or found['user']}:", f"{told}, {found['ms']} ms")])
