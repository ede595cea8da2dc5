"""The settings as text: for C{.env.example} and for the operating guide."""

from __future__ import annotations

import textwrap

from matrix.settings._model import Settings, env_name


def _ordered() -> list[str]:
    """What concerns every router, before what only some need: what it inherits."""
    return sorted(Settings.model_fields, key=lambda field: field not in Settings.__annotations__)


def _default_text(field: str) -> str:
    default = Settings.model_fields[field].default
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def example() -> str:
    """The text of C{.env.example}: every setting, its description, and its default."""
    blocks = [
        "# Every setting of Matrix, each with its default. Made by `python -m matrix.settings`.\n"
        "# What stands behind an empty value is said in the description.\n"
    ]
    for field in _ordered():
        description = textwrap.fill(
            str(Settings.model_fields[field].description),
            98,
            initial_indent="# ",
            subsequent_indent="# ",
            break_on_hyphens=False,
        )
        blocks.append(f"{description}\n#{env_name(field)}={_default_text(field)}\n")
    return "\n".join(blocks)


def table() -> str:
    """The same as a Markdown table, for the operating guide."""
    lines = ["| Setting | Default | What it says |", "|---|---|---|"]
    for field in _ordered():
        default = _default_text(field)
        shown = f"`{default}`" if default else ""
        lines.append(
            f"| `{env_name(field)}` | {shown} | {Settings.model_fields[field].description} |"
        )
    return "\n".join(lines) + "\n"
