"""Notices that a client leaves while nobody reads what it sends."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from matrix.net.interfaces import Presence

if TYPE_CHECKING:
    from matrix.http._server import ServerConnection

LOOK_INTERVAL = 0.25
"""Seconds between two looks. The wheel may add two of its ticks, and a client that left is to
be known within a second."""


class Watch:
    """
    Looks after one client's connection.

    While the connection is read, the loop tells of its end. While it is not (its machine
    does not take the body, or is still waking; a further request waits for its turn), or
    while what we wrote is not taken, the kernel is asked now and then.

    Over TLS an end is always a departure: the loop's TLS cannot be half-closed. A plain
    connection that ended (FIN) may be half-closed by a client that still reads (RFC 9112
    section 9.6 has us do so ourselves), and is answered, unless it is an event stream,
    which nobody can be owed the end of.
    """

    __slots__ = ("_connection", "deadline", "wheel_due")

    def __init__(self, connection: ServerConnection) -> None:
        self.deadline = inf
        self.wheel_due = inf
        self._connection = connection

    def begin(self) -> None:
        """Nobody reads from now on; costs nothing when somebody does again."""
        self._connection.factory.wheel.arm(self, LOOK_INTERVAL)

    def expired(self) -> None:
        """Time for a look."""
        connection = self._connection
        transport = connection.transport
        if transport.disconnecting or not connection.unattended:
            return
        presence = transport.presence()
        if presence is Presence.GONE:
            connection.abort()
        elif presence is Presence.ENDED and not connection.may_wait:
            connection.readConnectionLost()
        else:
            self.begin()
