"""What became of each thing that a client tried, and whether a disturbance explains it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

RIGHT = "right"
BROKEN = "cut off"
"""The connection ended before the answer was whole."""

DONE_TWICE = "done twice"
"""A DELETE found nothing any more, since the machine had done it and could not tell."""

UNNOTICED = "cut off unnoticed"
"""A body whose end is told by nothing but the connection's: where a machine is killed, its
kernel ends the connection as properly as the machine would have."""

AFTERMATH = 5.0
"""Seconds for which a disturbance may still show: a machine that was killed starts again, one
that was stopped has a queue before it."""

_LOST_TOUCH = frozenset(
    (BROKEN, DONE_TWICE, "502", "503", "504", "closed 1013", "closed 1014", "stream ended")
)

SUFFERED = {
    "killed": _LOST_TOUCH | {UNNOTICED},
    "stopped": _LOST_TOUCH | {"closed 1012"},
    "blocked": _LOST_TOUCH | {"closed 1012", "closed 4403", "403"},
    "suspended": frozenset(("closed 1012", "stream ended")),
}
"""What each disturbance of a user's machine may do to that user's requests, and to nobody
else's. To suspend a machine ends its streams, and nothing else; one that is found stopped is
taken for suspended."""


class Wrong(Exception):
    """An answer that must not be: never explained by anything."""


class Ended(Exception):
    """A stream that ended before its time."""


class Refused(Exception):
    """An error of Matrix's own, properly told."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}".rstrip())
        self.status = status


@dataclass
class _Trouble:
    kind: str
    began: float
    ended: float = inf


class Troubles:
    """What was done to whose machine, and when."""

    def __init__(self) -> None:
        self._by_user: dict[str, list[_Trouble]] = {}
        self.count: Counter[str] = Counter()

    @contextmanager
    def of(self, user: str, kind: str) -> Iterator[None]:
        """While something is done to a user's machine."""
        trouble = _Trouble(kind, time.monotonic())
        self._by_user.setdefault(user, []).append(trouble)
        self.count[kind] += 1
        try:
            yield
        finally:
            trouble.ended = time.monotonic()

    def explain(self, user: str, outcome: str, began: float) -> bool:
        """Whether something that is over for no more than L{AFTERMATH} seconds before
        C{began} may have led to an outcome."""
        words = outcome.split(" ")
        seen = {outcome, words[0], " ".join(words[:2])}
        return any(
            seen & SUFFERED.get(trouble.kind, frozenset()) and trouble.ended + AFTERMATH >= began
            for trouble in self._by_user.get(user, ())
        )


@dataclass
class Tally:
    """Everything that clients met."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    """What came of it, by what was tried."""
    faults: list[str] = field(default_factory=list)
    """What nothing explains."""

    def note(self, tried: str, outcome: str) -> None:
        """Count one attempt."""
        self.outcomes.setdefault(tried, Counter())[outcome] += 1

    def tried(self, what: str) -> int:
        """How often something was tried."""
        return self.outcomes.get(what, Counter()).total()
