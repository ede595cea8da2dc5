"""What is to go wrong with calls: by chance, or the next few of a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import count
from typing import Any

from matrix.errors import ConfigurationError
from matrix.testing.fly.chance import Chance
from matrix.testing.fly.refusals import ROWS


class Kind(StrEnum):
    """What happens to a call."""

    ROW = "row"
    """Refused with a row of the catalogue; nothing is done."""
    STATUS = "status"
    """Answered with a bare status; nothing is done."""
    LOST = "lost"
    """Done, but the connection is closed without an answer."""
    BEFORE = "before"
    """The connection is closed, and nothing is done."""
    DONE_STATUS = "done-status"
    """Done, but answered with a status that says otherwise."""
    SLOW = "slow"
    """Done after a while."""
    ERROR_IN_OK = "error-in-ok"
    """Nothing is done, and the answer is 200 with C{status: error} in it."""


@dataclass(frozen=True)
class Fault:
    """Which calls it befalls, how often, and what it does."""

    kind: Kind
    action: str = "*"
    """A name like C{machines.start}, or a pattern like C{machines.*}."""
    machine: str | None = None
    """Only that one's calls; or those of one volume, or app."""
    rate: float = 1.0
    """How likely it is, from 0 to 1."""
    times: int | None = None
    """How often it happens before it is over; for ever if C{None}."""
    row: str = ""
    status: int = 503
    seconds: float = 0.0

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Fault:
        """
        @param members: as the control API takes them.
        @raise ConfigurationError: they make no sense.
        """
        try:
            fault = cls(**{**members, "kind": Kind(members.get("kind", ""))})
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"no fault can be made of {dict(members)}: {error}") from None
        if fault.kind is Kind.ROW and fault.row not in ROWS:
            raise ConfigurationError(f"there is no row {fault.row!r}, only {', '.join(ROWS)}")
        if not 0 <= fault.rate <= 1:
            raise ConfigurationError(f"rate is {fault.rate}: it is from 0 to 1")
        if fault.times is not None and fault.times < 1:
            raise ConfigurationError(f"times is {fault.times}: it is at least 1")
        if not 400 <= fault.status <= 599:
            raise ConfigurationError(f"status is {fault.status}: it is from 400 to 599")
        return fault

    def befalls(self, action: str, subjects: frozenset[str]) -> bool:
        """Whether a call may be meant."""
        named = self.machine is None or self.machine in subjects
        return named and fnmatchcase(action, self.action)


class Faults:
    """All that are to happen. What is scripted goes before what is left to chance."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._faults: dict[int, Fault] = {}
        self._numbers = count(1)

    def add(self, fault: Fault) -> int:
        """
        @return: the number to remove it with.
        """
        number = next(self._numbers)
        self._faults[number] = fault
        return number

    def remove(self, number: int) -> None:
        """It happens no more."""
        self._faults.pop(number, None)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._faults.clear()

    def draw(self, action: str, subjects: frozenset[str]) -> Fault | None:
        """
        What goes wrong with a call.

        @param subjects: the ids and names in its path.
        """
        by_script_first = sorted(
            self._faults.items(), key=lambda item: (item[1].times is None, item[0])
        )
        for number, fault in by_script_first:
            if not fault.befalls(action, subjects):
                continue
            if fault.rate < 1:
                name = ("fault", str(number), action, *sorted(subjects))
                if self._chance.draw(*name) >= fault.rate:
                    continue
            if fault.times is not None:
                if fault.times == 1:
                    del self._faults[number]
                else:
                    self._faults[number] = replace(fault, times=fault.times - 1)
            return fault
        return None

    def shown(self) -> list[dict[str, Any]]:
        """Those that are left."""
        return [{"number": number, **asdict(fault)} for number, fault in self._faults.items()]
