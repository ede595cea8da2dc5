"""C{matrix machine ...}: what users' machines are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from matrix.cli._output import clear_errors, json_option, show
from matrix.cli._server import locate, user_path
from matrix.cli._text import facts
from matrix.model import UserId, user_id

if TYPE_CHECKING:
    from matrix.settings import Settings

VOLUME = "vol_of_the_user"
"""Stands in the config where Fly's id of the volume will be."""


@click.group()
def machine() -> None:
    """Have users' machines made, and see what they are made of."""


@machine.command()
@click.argument("user")
@json_option
@click.pass_obj
def render(settings: Callable[[], Settings], user: str, as_json: bool) -> None:
    """Print the fly.toml of USER's machine; with --json the config that Fly is given.

    Secrets are left out. It is made from the settings and the template alone, so that it can be
    tried before any machine is made; Matrix is asked only whose name USER is, if it is no user id.
    """
    from matrix.machines import REDACTED, fly_plans

    with clear_errors():
        found = settings()
        environment = {"MATRIX_MACHINE_TOKEN": REDACTED}
        wanted = fly_plans(found).wanted(_identified(found, user), environment)
    show(wanted.config(VOLUME), as_json, lambda _: wanted.text.splitlines())


@machine.command()
@click.argument("user")
@json_option
@click.pass_obj
def provision(settings: Callable[[], Settings], user: str, as_json: bool) -> None:
    """Have USER's machine made now, so that it is there when they come; it is not started.

    Somebody who has never come is named by their user id. A machine that is there stays as it is.
    """
    with clear_errors():
        found = locate(settings()).post(user_path(user, "provision"))
    show(found, as_json, _provisioned)


def _provisioned(found: Mapping[str, Any]) -> list[str]:
    done = f"made in {found['ms']} ms" if found["made"] else f"there already, {found['state']}"
    named = [(name, found[name]) for name in ("machine_id", "volume_id", "region", "size")]
    head = (f"{found['email'] or found['user']}:", done)
    return facts([head, *((name.replace("_id", ""), value) for name, value in named if value)])


def _identified(settings: Settings, user: str) -> UserId:
    try:
        return user_id(user)
    except ValueError:
        found = locate(settings).get(f"{user_path(user, 'events')}?limit=1")
        return UserId(str(found["user"]))
