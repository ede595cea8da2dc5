"""Notices that a client leaves while nobody reads what it sends."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from matrix.http._reader import RequestReader
from matrix.net.interfaces import Presence

if TYPE_CHECKING:
    from matrix.http._server import ServerConnection

LOOK_INTERVAL = 0.25
"""Seconds between two looks. The wheel may add two of its ticks, and a client that left is to
be known within a second."""

_EMPTY_LINE = b"\r\n\r\n"


class Watch:
    """
    Looks after one client's connection.

    While the connection is read, the loop tells of its end. While it is not (its machine
    does not take the body, or is still waking; a further request waits for its turn), or
    while what we wrote is not taken, the kernel is asked now and then.

    Over TLS an end is always a departure: the loop's TLS cannot be half-closed. A plain
    connection that ended (FIN) may be half-closed by a client that still reads (RFC 9112
    section 9.6 has us do so ourselves), and is answered, unless it ended in the middle of
    a body or is an event stream, which nobody can be owed the end of.
    """

    __slots__ = ("_connection", "_owed", "_reader", "deadline", "wheel_slot")

    def __init__(self, connection: ServerConnection, reader: RequestReader) -> None:
        self.deadline = inf
        self.wheel_slot = 0
        self._connection = connection
        self._reader = reader
        self._owed = False

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
        elif presence is Presence.ENDED and self._has_left():
            connection.readConnectionLost()
        else:
            self.begin()

    def _has_left(self) -> bool:
        """Whether a client that sends no more cannot wait for an answer either."""
        # What has arrived is all there will be, so that the verdict stands.
        self._owed = self._owed or (self._connection.may_wait and not self._body_is_cut())
        return not self._owed

    def _body_is_cut(self) -> bool:
        """Whether the rest of the body is not among the bytes that have arrived."""
        connection = self._connection
        if not connection.body_open:
            return False
        reader, transport = self._reader, connection.transport
        if not reader.in_chunks:
            return reader.buffered + int(transport.unread()) < reader.left_of_body
        # A chunked body ends in an empty line (RFC 9112 section 7.1).
        end = reader.peek_end(len(_EMPTY_LINE)) + transport.unread_end(len(_EMPTY_LINE))
        return not end.endswith(_EMPTY_LINE)
