"""Connections on their way in: accepted, and not yet through their TLS handshake."""

from __future__ import annotations

import socket
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable

MOST = 2048
"""Handshakes in progress. With a round trip of 0.1 s that is 20,000 handshakes per second,
more than a core can compute."""

MUTE = 0.1
"""Seconds without a first byte after which a handshake may be given up for another one: a
client's hello comes right behind its connection."""

SILENCE = 1.0
"""The same in the middle of a handshake: the client's next flight takes a round trip."""

LOOKS = 8
"""Handshakes looked at for one that is silent, each time a place is wanted."""

_INFO = struct.Struct("=44x I 4x I 72x Q")
"""Of C{struct tcp_info} (linux/tcp.h): C{tcpi_last_data_sent} and C{tcpi_last_data_recv}, in
milliseconds ago, at first since the connection was made; and C{tcpi_bytes_received}."""


class Arrivals:
    """
    Bounds the handshakes that are in progress, and counts what became of them.

    A flood of connections that never say a word must neither use up all places nor keep
    others out: once all places are taken, a handshake that has been silent is given up for
    the next; if none has, nobody else is accepted for a moment, and waits with the kernel.
    A crowd that does talk thus loses nobody.
    """

    def __init__(self, most: int = MOST) -> None:
        """@param most: handshakes in progress; at least one, and L{MOST} at most."""
        self._most = min(max(1, most), MOST)
        self._waiting: OrderedDict[socket.socket, Callable[[], object]] = OrderedDict()
        self.failed: Counter[str] = Counter()
        """How many handshakes came to nothing, by reason."""
        self.pauses: Counter[str] = Counter()
        """How often accepting was suspended, by what was short."""

    @property
    def in_progress(self) -> int:
        """How many there are now."""
        return len(self._waiting)

    def begin(self, connection: socket.socket, give_up: Callable[[], object]) -> None:
        """A handshake begins; C{give_up} ends it early."""
        self._waiting[connection] = give_up

    def end(self, connection: socket.socket) -> None:
        """It is over, whichever way."""
        self._waiting.pop(connection, None)

    def make_room(self) -> bool:
        """Whether another handshake may begin, for which a silent one may have to end."""
        return len(self._waiting) < self._most or self.give_up_one()

    def give_up_one(self) -> bool:
        """End a handshake that has been silent; whether one was found."""
        for _ in range(min(LOOKS, len(self._waiting))):
            connection, give_up = next(iter(self._waiting.items()))
            if _is_silent(connection):
                del self._waiting[connection]
                give_up()
                return True
            self._waiting.move_to_end(connection)
        return False


def _is_silent(connection: socket.socket) -> bool:
    """Whether a connection has waited for its peer for too long; not if it waits for us."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass
    except OSError:
        return False
    else:
        return False
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:  # a unix socket
        return False
    sent, received, size = _INFO.unpack(info)
    return bool(min(sent, received) >= (SILENCE if size else MUTE) * 1000)
