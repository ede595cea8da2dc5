"""How each command answers and fails: JSON or lines for people, errors in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from matrix.cli._server import CommandError
from matrix.errors import ConfigurationError

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def show(value: Any, as_json: bool, render: Callable[[Any], Sequence[str]]) -> None:
    """
    Print an answer.

    @param render: makes lines for people of it.
    @raise click.ClickException: it cannot: the answer is not what it should be.
    """
    if as_json:
        click.echo(json.dumps(value, indent=2))
        return
    try:
        lines = render(value)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise click.ClickException(
            "the server's answer is not understood: is it of another version than this command?"
        ) from None
    click.echo("\n".join(lines))


@contextmanager
def clear_errors() -> Iterator[None]:
    """Let what the operator can do something about end in one line and exit status 1."""
    try:
        yield
    except (CommandError, ConfigurationError) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{where}{error.strerror or error}") from None
