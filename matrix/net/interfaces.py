"""What other rooms need of the network room."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from zope.interface import Attribute, Interface


class Timed(Protocol):
    """Something with a deadline."""

    deadline: float
    """When L{expired} is due, by the wheel's C{now}; C{inf} for never."""
    wheel_due: float
    """The wheel's own note; C{inf} at first."""

    def expired(self) -> None:
        """The deadline has passed. May arm anew."""


class IWheel(Interface):
    """Every deadline of the process, kept coarsely and cheaply."""

    now: float = Attribute("The time of the last tick, in seconds.")

    def arm(item: Timed, seconds: float) -> None:
        """Let C{item} expire so many seconds from now. To disarm, set C{item.deadline} to
        C{inf}."""


class Presence(Enum):
    """Whether a peer is there."""

    HERE = "here"
    ENDED = "ended"
    """It will send no more (FIN): it has left, or it waits for what it is owed."""
    GONE = "gone"
    """The connection was reset, or has timed out."""
