"""Lets others have a turn while one client's pipelined requests are answered."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matrix.http._server import ServerConnection

BURST = 64
"""Requests of one connection that are answered at once within one tick of the wheel. One read
may hold two thousand, and refusing them all in one go stopped the loop for a second."""


class Breath:
    """
    Counts the requests of one connection that were answered before the next one of the same
    read was looked at. Those that wait for a machine leave the loop to others anyway.
    """

    __slots__ = ("_answered", "_connection", "_since", "deadline", "wheel_due")

    def __init__(self, connection: ServerConnection) -> None:
        self.deadline = inf
        self.wheel_due = inf
        self._connection = connection
        self._answered = 0
        self._since = -inf

    def lasts(self) -> bool:
        """Whether another request may follow at once; if not, it follows at the next tick."""
        connection = self._connection
        wheel = connection.factory.wheel
        if self._since != wheel.now:
            self._since, self._answered = wheel.now, 0
        self._answered += 1
        if self._answered < BURST:
            return True
        connection.transport.pauseProducing()
        wheel.arm(self, 0)
        return False

    def expired(self) -> None:
        """Go on."""
        connection = self._connection
        if not connection.transport.disconnecting:
            connection.transport.resumeProducing()
            connection.pump()
