"""The command that a machine runs in place of its image."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix.errors import ConfigurationError

PLACES = ("host", "port", "data", "machine")

_PLACE = re.compile(r"\{(\w+)\}")
_RUN_TWISTD = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"

DAEMON = (
    sys.executable, "-P", "-c", _RUN_TWISTD, "--nodaemon", "--pidfile=",
    "matrix-daemon", "--listen", "tcp:{host}:{port}", "--data", "{data}",
)  # fmt: skip
"""Our daemon, which wants C{MATRIX_MACHINE_TOKEN} in the machine's environment."""

TINY = (sys.executable, "-I", "-S", str(Path(__file__).with_name("program.py")),
        "{host}", "{port}", "{data}")  # fmt: skip
"""A small server that starts fast and takes little memory; for many machines."""

KNOWN = {"daemon": DAEMON, "tiny": TINY}


@dataclass(frozen=True, slots=True)
class Command:
    """Words with the places C{{host}}, C{{port}}, C{{data}} and C{{machine}}."""

    words: Sequence[str]

    @classmethod
    def parse(cls, text: str) -> Command:
        """
        @param text: C{daemon}, C{tiny}, or a command as a shell would split it.
        @raise ConfigurationError: there is no word, or a place that we do not fill in.
        """
        if text in KNOWN:
            return cls(KNOWN[text])
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise ConfigurationError(f"the program cannot be split: {error}") from None
        if not words:
            raise ConfigurationError("the program is empty: give daemon, tiny or a command")
        for name in _PLACE.findall(" ".join(words)):
            if name not in PLACES:
                known = ", ".join(f"{{{place}}}" for place in PLACES)
                raise ConfigurationError(f"the program has {{{name}}}; there are {known}")
        return cls(words)

    def fill(self, machine_id: str, host: str, port: int, data: Path) -> list[str]:
        """The words with every place filled in."""
        values = {"host": host, "port": str(port), "data": str(data), "machine": machine_id}
        return [_PLACE.sub(lambda match: values[match[1]], word) for word in self.words]
