"""For how long machines are awake, and what for: the values, and who keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from zope.interface import Interface

from matrix.model import MachineState, UserId

AWAKE = frozenset(
    {
        MachineState.STARTING,
        MachineState.RUNNING,
        MachineState.DRAINING,
        MachineState.SUSPENDING,
    }
)
"""The states in which a machine costs what one costs that runs. The migration says the same."""

FOUND = "found"
"""The cause of a machine that runs although no router started it."""

UNKNOWN = "unknown"
"""The cause where none was written down."""

KEPT_DAYS = 100
"""For how many days it is known who was awake for how long: a quarter, and some more."""


@dataclass(frozen=True, slots=True)
class Spell:
    """A machine is awake now."""

    since: datetime
    cause: str


@dataclass(frozen=True, slots=True)
class Waking:
    """How much one user's machine was awake within some days, this one included."""

    user_id: UserId
    email: str
    seconds: Mapping[str, float]
    """By what woke it; up to now."""
    wakes: Mapping[str, int]
    """How often, by what woke it."""
    now: Spell | None
    """C{None}: it sleeps."""
    last_active_at: datetime | None
    """When it was last in use, as far as the directory knows."""


@dataclass(frozen=True, slots=True)
class FleetWaking:
    """How much the whole fleet is awake for one cause."""

    machines: int
    """Those that are awake now."""
    seconds: float
    """Since ever, up to now."""


class IAwake(Interface):
    """
    Who was awake for how long. What L{matrix.directory.IDirectory} says of awaitables holds
    here too. Days are those of UTC.
    """

    async def top(days: int, limit: int) -> Sequence[Waking]:
        """
        Those whose machines were awake longest, the longest first.

        @param days: to look back, this one included.
        """

    async def of_user(user_id: UserId, days: int) -> Waking:
        """One user's, who may never have had a machine."""

    async def fleet() -> Mapping[str, FleetWaking]:
        """All machines', by cause."""

    async def purge() -> int:
        """
        Forget the days that are over for longer than anybody asks.

        @return: how many rows there were of them.
        """
