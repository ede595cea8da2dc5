"""The command that is a user's machine: its words, and the places to fill in."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix.errors import ConfigurationError

PLACES = ("socket", "port", "data", "user")

_PLACE = re.compile(r"\{(\w+)\}")

_RUN_TWISTD = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"

DAEMON = (
    sys.executable,
    "-P",  # a user's file named like a module must not be imported in its place
    "-c",
    _RUN_TWISTD,
    "--nodaemon",
    "--pidfile=",
    "matrix-daemon",
    "--listen",
    "unix:{socket}",
    "--data",
    "{data}",
)
"""Our daemon, logging to standard output and writing no pid file."""


@dataclass(frozen=True, slots=True)
class Command:
    """
    A command with the places C{{socket}}, C{{port}}, C{{data}} and C{{user}} in its words.

    It must stay in the foreground: a command whose first process ends has died.
    """

    words: Sequence[str]

    @classmethod
    def parse(cls, text: str | None) -> Command:
        """
        Split a command as a shell does; C{None} is our daemon.

        @raise ConfigurationError: the quotes do not match, there is no word, or a place
            has a name that we do not fill in.
        """
        if text is None:
            return cls(DAEMON)
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ConfigurationError(f"MATRIX_LOCAL_COMMAND cannot be split: {error}") from None
        if not words:
            raise ConfigurationError(
                "MATRIX_LOCAL_COMMAND is empty: give a command, or unset it for our daemon"
            )
        for name in _PLACE.findall(" ".join(words)):
            if name not in PLACES:
                known = ", ".join(f"{{{place}}}" for place in PLACES)
                raise ConfigurationError(
                    f"MATRIX_LOCAL_COMMAND: {{{name}}} is unknown; there are {known}"
                )
        return cls(tuple(words))

    def mentions(self, place: str) -> bool:
        """Whether a place is there to be filled in."""
        return any(f"{{{place}}}" in word for word in self.words)

    def fill(self, values: Mapping[str, str]) -> list[str]:
        """The words with every place filled in; a value is never read as a place again."""
        return [_PLACE.sub(lambda match: values[match[1]], word) for word in self.words]

    def files(self) -> list[Path]:
        """The existing files that its words name by absolute paths: a script, say."""
        return [Path(word) for word in self.words if word.startswith("/") and Path(word).is_file()]
