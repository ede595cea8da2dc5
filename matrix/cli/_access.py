"""C{matrix users} and C{matrix sessions}: who may come in, and who is signed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from matrix.cli._output import clear_errors, json_option, show
from matrix.cli._server import CommandError, Server, locate, session_path, user_path
from matrix.cli._text import facts, moment, table

if TYPE_CHECKING:
    from matrix.settings import Settings

NOBODY = "user"
"""The server's reason when it knows no such user."""


@click.group()
def users() -> None:
    """Say who may come in."""


@users.command()
@click.argument("user")
@json_option
@click.pass_obj
def block(settings: Callable[[], Settings], user: str, as_json: bool) -> None:
    """Keep USER out. Open streams are cut, requests get 403, at every router."""
    _set_state(settings, user, "block", as_json)


@users.command()
@click.argument("user")
@json_option
@click.pass_obj
def unblock(settings: Callable[[], Settings], user: str, as_json: bool) -> None:
    """Let USER in again, who was blocked or deleted."""
    _set_state(settings, user, "unblock", as_json)


@users.command()
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def delete(settings: Callable[[], Settings], user: str, yes: bool, as_json: bool) -> None:
    """Close the account of USER. As block, but requests get 410.

    Machine and snapshots are erased after MATRIX_DELETE_GRACE; until then unblock undoes it.
    """
    if not yes:
        with clear_errors():
            found = locate(settings()).get(user_path(user))
            who = f"{found['email']} ({found['id']})" if found["email"] else found["id"]
        click.confirm(f"Delete {who}?", abort=True, err=True)
        user = found["id"]
    _set_state(settings, user, "delete", as_json)


def _set_state(settings: Callable[[], Settings], user: str, verb: str, as_json: bool) -> None:
    with clear_errors():
        found = locate(settings()).post(user_path(user, verb))
    show(found, as_json, _state_lines)


def _state_lines(found: Mapping[str, Any]) -> list[str]:
    now, was = found["state"], found["was"]
    return facts([(f"{_name(found)}:", f"{now} already" if now == was else f"{now}, was {was}")])


@click.group()
def sessions() -> None:
    """Say who is signed in."""


@sessions.command("list")
@click.argument("user")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="How many sessions to show.",
)
@json_option
@click.pass_obj
def list_sessions(settings: Callable[[], Settings], user: str, limit: int, as_json: bool) -> None:
    """Show the sessions of USER, those first whose newest token lives longest."""
    with clear_errors():
        found = locate(settings()).get(f"{user_path(user, 'sessions')}?limit={limit}")
    show(found, as_json, _session_lines)


def _session_lines(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if found["state"] != "active":
        lines += facts([(f"{_name(found)}:", f"{found['state']}; no session lets them in")])
    rows = [
        (one["id"], moment(one["seen_at"]), moment(one["token_expires_at"]), _state(one))
        for one in found["sessions"]
    ]
    if not rows:
        return [*lines, "no sessions"]
    head, *body = table(("SESSION", "FIRST SEEN", "TOKEN EXPIRES", "STATE"), rows)
    return [*lines, click.style(head, bold=True), *body]


def _state(session: Mapping[str, Any]) -> str:
    if session["revoked_at"] is None:
        return str(session["state"])
    return f"revoked {moment(session['revoked_at'])} ({session['revoke_cause']})"


@sessions.command()
@click.argument("target", metavar="USER|SESSION")
@json_option
@click.pass_obj
def revoke(settings: Callable[[], Settings], target: str, as_json: bool) -> None:
    """Let nobody in any more by one SESSION, or by any that USER has: a new sign-in is needed."""
    with clear_errors():
        found = _revoke(locate(settings()), target)
    show(found, as_json, _revoked_lines)


def _revoke(server: Server, target: str) -> Any:
    try:
        return server.post(user_path(target, "sessions", "revoke"))
    except CommandError as error:
        if error.reason != NOBODY:
            raise
    try:
        session = str(UUID(target))
    except ValueError:
        raise CommandError(
            f"no user is known as {target!r}, and it is no session id (a UUID) either: "
            "matrix sessions list USER shows a user's"
        ) from None
    return server.post(session_path(session, "revoke"))


def _revoked_lines(found: Mapping[str, Any]) -> list[str]:
    if "revoked" in found:
        count = len(found["revoked"])
        told = f"{count} revoked" if count else "no session to revoke"
        return facts([(f"{_name(found)}:", told), *((one, "revoked") for one in found["revoked"])])
    unseen = "" if found["user"] else "; neither a user nor a session of that id was ever seen"
    return facts([(f"{found['id']}:", f"{_state(found)}{unseen}")])


def _name(found: Mapping[str, Any]) -> str:
    return str(found["email"] or found["user"])
