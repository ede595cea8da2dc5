"""What the kernel tells of a peer from whose socket nobody reads."""

import socket
import struct

from twisted.trial.unittest import SynchronousTestCase

from matrix.net import Presence
from matrix.net._presence import presence


class PresenceTests(SynchronousTestCase):
    def setUp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = socket.create_connection(listener.getsockname())
            self.ours, _ = listener.accept()
        self.addCleanup(self.peer.close)
        self.addCleanup(self.ours.close)
        self.number = self.ours.fileno()

    def test_here_ended_and_gone(self) -> None:
        """Each behind bytes that nobody has read."""
        self.assertIs(presence(self.number), Presence.HERE)
        self.peer.sendall(b"x" * 1000)
        self.assertIs(presence(self.number), Presence.HERE)
        self.peer.shutdown(socket.SHUT_WR)
        self.assertIs(presence(self.number), Presence.ENDED)
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()
        self.assertIs(presence(self.number), Presence.GONE)
