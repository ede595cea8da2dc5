"""A call of the API, and the table entries that say what is done about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matrix.machines._fly_rates import USUAL, Rate
from matrix.testing.fly.refusals import invalid

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Call:
    """One request, taken apart."""

    action: str
    path: Mapping[str, str] = field(default_factory=dict)
    """What stands in the path's places."""
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Any = None
    nonce: str | None = None
    """Of the lease that the caller says to hold."""
    org: str = ""
    """Whose token it came with."""

    def text(self, name: str) -> str | None:
        """A parameter of the query; the last one if there are several."""
        values = self.query.get(name)
        return values[-1] if values else None

    def flag(self, name: str) -> bool:
        """
        Whether a parameter says so.

        @raise Refusal: it says neither.
        """
        value = self.text(name)
        if value in (None, "false", "0"):
            return False
        if value in ("", "true", "1"):
            return True
        raise invalid(f"{name} is true or false, not {value!r}")

    def number(self, name: str) -> int | None:
        """@raise Refusal: the parameter is no whole number."""
        value = self.text(name)
        try:
            return None if value is None else int(value)
        except ValueError:
            raise invalid(f"{name} is a whole number, not {value!r}") from None

    def choices(self, name: str) -> list[str]:
        """A parameter that may be there several times, and hold several values with commas."""
        return [one for value in self.query.get(name, ()) for one in value.split(",") if one]


@dataclass(frozen=True)
class Action:
    """Something that the API does."""

    name: str
    """As faults and counts name it: C{machines.start}."""
    method: str
    path: str
    """Below the version's prefix; C{<places>} as werkzeug writes them."""
    do: Callable[[Call], Any]
    """Gives the answer, or something to await it from; raises L{Refusal}."""
    status: int = 200
    """Of an answer that is no refusal."""
    body: str | None = None
    """The schema of what is sent; with none, what is sent is not looked at."""
    answer: str | None = None
    """The schema of the answer, in brackets for a list of such."""
    rate: Rate = USUAL


def seconds(value: object, otherwise: float) -> float:
    """
    A duration as Fly's API has it: a Go string, or a number of nanoseconds.

    @raise Refusal: it is neither.
    """
    if value is None or value == "":
        return otherwise
    if isinstance(value, int):
        return value / 1e9
    text = str(value)
    if _DURATION.sub("", text) or not text:
        raise invalid(f"{value!r} is no duration")
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
