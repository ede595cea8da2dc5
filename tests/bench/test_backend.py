"""The backend of the bench, without sockets."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from bench.backend import BLOCK, KILOBYTE, Connection
from bench.clients.echo import MESSAGE, Echo, frame


class Transport:
    """What was written, and a brake."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.after: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))
        self.after()

    @property
    def text(self) -> bytes:
        return b"".join(self.written)


class BackendTests(SynchronousTestCase):
    """One connection of a proxy."""

    def setUp(self) -> None:
        self.transport = Transport()
        self.connection = Connection()
        self.connection.connection_made(self.transport)

    def test_a_kilobyte(self) -> None:
        """Whole, and also if the head comes in parts."""
        self.connection.data_received(b"GET /1k HTTP/1.1\r\nHost: a\r\n\r\n")
        self.connection.data_received(b"GET /1k HTTP/1.1\r\n")
        self.connection.data_received(b"Host: a\r\n\r\n")
        self.assertEqual(self.transport.written, [KILOBYTE, KILOBYTE])

    def test_an_upload_is_answered_when_it_is_there(self) -> None:
        """And the connection takes another request after it."""
        self.connection.data_received(b"POST /sink HTTP/1.1\r\nContent-Length: 10\r\n\r\n1234")
        self.connection.data_received(b"567")
        self.assertEqual(self.transport.written, [])
        self.connection.data_received(b"890")
        self.assertTrue(self.transport.text.endswith(b"Content-Length: 2\r\n\r\n10"))
        self.connection.data_received(b"GET /1k HTTP/1.1\r\n\r\n")
        self.assertEqual(self.transport.written[-1], KILOBYTE)

    def test_a_chunked_upload_ends(self) -> None:
        """Some proxies pass bodies on in chunks."""
        self.connection.data_received(b"POST /sink HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.connection.data_received(b"3\r\nabc\r\n0\r")
        self.assertEqual(self.transport.written, [])
        self.connection.data_received(b"\n\r\n")
        self.assertTrue(self.transport.text.startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_a_download_waits_for_its_reader(self) -> None:
        """It goes on where it was, to the last byte."""
        size = 3 * len(BLOCK) + 17
        self.transport.after = self.connection.pause_writing
        self.connection.data_received(b"GET /download?%d HTTP/1.1\r\n\r\n" % size)
        before = len(self.transport.text)
        self.assertLess(before, size)
        for _ in range(4):
            self.connection.resume_writing()
        body = self.transport.text.partition(b"\r\n\r\n")[2]
        self.assertEqual(len(body), size)

    def test_messages_come_back_unmasked(self) -> None:
        """Two at once, the second in parts."""
        self.connection.data_received(b"GET /echo HTTP/1.1\r\nSec-WebSocket-Key: a\r\n\r\n")
        self.transport.written.clear()
        both = frame() + frame()
        self.connection.data_received(both[:-5])
        self.connection.data_received(both[-5:])
        one = b"\x81\x7e" + MESSAGE.to_bytes(2, "big") + b"m" * MESSAGE
        self.assertEqual(self.transport.text, one + one)
        self.assertEqual(len(one), Echo.reply)
