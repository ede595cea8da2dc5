"""What a wake asks of the directory: everything it needs at once, and its outcome at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zope.interface import Interface

from matrix.model import Machine, User, UserId

LATEST = 50
"""Events in which a machine's wakes are looked for: wakes are about half of them all."""

WAKE = "wake"
"""The kind of the event of a wake, and the cause of those of attempts that failed."""
FAILED = "failed"
"""The kind of the event of an attempt that failed."""


@dataclass(frozen=True, slots=True)
class Past:
    """How a machine's latest wakes went, as its events tell. The newest come first."""

    wakes: tuple[tuple[str, float], ...] = ()
    """What it was before, and the seconds it took."""
    failures: int = 0
    """Attempts that failed since the last that succeeded."""
    failed_ago: float = 0.0
    """Seconds since the last of them."""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a user who wants their machine."""

    user: User | None
    machine: Machine | None
    past: Past
    claimed: bool = False
    """Whether the machine's row was claimed; it is told as it is since."""


class IWakes(Interface):
    """
    Statements that a wake would otherwise make one after the other. What
    L{matrix.directory.IDirectory} says of awaitables holds here too.
    """

    async def find(user_id: UserId, claim: Mapping[str, object] | None = None) -> Found:
        """
        The user, their machine and how its wakes went, in one statement.

        @param claim: columns that the machine's row gets at once, C{lease_owner} among them, if it
            is suspended, its user may come in, and nobody else has it in hand.
        @raise TypeError: C{claim} cannot be so.
        """

    async def change(
        machine: Machine, kind: str, cause: str, detail: Mapping[str, object], **fields: object
    ) -> Machine:
        """
        As L{matrix.directory.IDirectory.change}, and record an event of it, both or neither.

        @raise StaleRow: the row has another generation, or is gone.
        @raise TypeError: C{fields} cannot be so.
        """


def read_past(events: list[tuple[str, str, Mapping[str, object], float]]) -> Past:
    """
    What events tell of wakes.

    @param events: kind, cause, detail and age (seconds) of each, the newest first.
    """
    wakes: list[tuple[str, float]] = []
    failed: list[float] = []
    for kind, cause, detail, age in events:
        if kind == WAKE:
            took = _seconds(detail.get("start_ms")) + _seconds(detail.get("ready_ms"))
            if took > 0:
                wakes.append((str(detail.get("was", "")), took))
        elif kind == FAILED and cause == WAKE and not wakes:
            failed.append(age)
    return Past(tuple(wakes), len(failed), failed[0] if failed else 0.0)


def _seconds(milliseconds: object) -> float:
    return milliseconds / 1000 if isinstance(milliseconds, int | float) else 0.0
