"""Clients that take their time: each is ended at its limit, and nobody else waits for them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from matrix.testing.hostile_case import HostileCase, Raw, send, status

HEAD, BODY, KEEP = 1.0, 1.0, 2.0
"""Seconds: the limits that these tests set."""

SLACK = 2.5
"""Seconds by which a limit may be late: half a second for the wheel, the rest for a busy host."""

CROWD = 100


class SlowTests(HostileCase):
    def until_ended(self, raw: Raw, piece: bytes, every: float) -> tuple[bytes, float]:
        """Drip until the other side has had enough: what it said, and after how long."""
        raw.socket.settimeout(every)
        said, began = b"", time.monotonic()
        while time.monotonic() - began < 10:
            raw.send(piece)
            try:
                more = raw.socket.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if not more:
                break
            said += more
        return said, time.monotonic() - began

    def assert_limit(self, seconds: float, limit: float) -> None:
        self.assertGreater(seconds, limit - 0.3)
        self.assertLess(seconds, limit + SLACK)

    def test_head_that_drips(self) -> None:
        for begin in (b"G", b"GET / HTTP/1.1\r\nHost: h\r\nX: "):
            raw = self.connect()
            raw.send(begin)
            said, seconds = self.until_ended(raw, b"a", 0.1)
            self.assertEqual(status(said), 408)
            self.assert_limit(seconds, HEAD)

    def test_nothing_but_empty_lines(self) -> None:
        _, seconds = self.until_ended(self.connect(), b"\r\n", 0.1)
        self.assert_limit(seconds, HEAD)

    def test_nothing_at_all(self) -> None:
        self.assert_limit(self.connect().seconds_to_end(), HEAD)

    def test_body_that_stops(self) -> None:
        for framing in (b"Content-Length: 9", b"Transfer-Encoding: chunked"):
            raw = self.connect()
            raw.send(b"POST /slow HTTP/1.1\r\n%b%b\r\n\r\n5\r\n" % (self.signed, framing))
            began = time.monotonic()
            self.assertEqual(status(raw.rest()), 408)
            self.assert_limit(time.monotonic() - began, BODY)

    def test_body_that_drips_is_no_slower_than_allowed(self) -> None:
        """No limit on its total length: a slow line is no attack by itself."""
        raw = self.connect()
        raw.send(b"POST /slow HTTP/1.1\r\n%bContent-Length: 12\r\n\r\n" % self.signed)
        for _ in range(12):
            time.sleep(0.2)
            raw.send(b"x")
        raw.socket.settimeout(5)
        self.assertEqual(status(raw.socket.recv(65536)), 200)

    def test_idle_connections(self) -> None:
        raw = self.connect()
        raw.send(b"GET /x HTTP/1.1\r\n%b\r\n" % self.signed)
        raw.until(b"}")
        self.assert_limit(raw.seconds_to_end(), KEEP)

    def test_expecting_clients(self) -> None:
        """The machine is asked; a client that then sends nothing is not waited for."""
        raw = self.connect()
        raw.send(
            b"POST /x HTTP/1.1\r\n%bExpect: 100-continue\r\nContent-Length: 5\r\n\r\n" % self.signed
        )
        began = time.monotonic()
        self.assertEqual(status(raw.rest()), 408)
        self.assert_limit(time.monotonic() - began, BODY)
        refused = self.say(
            send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"),
            fields=b"Expect: 100-continue\r\nContent-Length: 5\r\n",
            method=b"POST",
        )
        self.assertEqual(status(self.exchange(refused)), 417)
        agreed = self.say(
            send(b"HTTP/1.1 100 Continue\r\n\r\n"),
            ["wait", 0.2],
            send(b"HTTP/1.1 204 No Content\r\n\r\n"),
            fields=b"Expect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n",
            method=b"POST",
        )
        raw = self.connect()
        raw.send(agreed)
        self.assertEqual(raw.until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
        raw.send(b"hello")
        self.assertEqual(status(raw.rest()), 204)

    def test_readers_with_a_closed_window(self) -> None:
        """A download and a pipeline that nobody reads: bounded memory, and an end."""
        big = self.say(
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n"), send(bytes(4096), 16384)
        )
        small = b"GET /x HTTP/1.1\r\n%b\r\n" % self.signed * 2000
        before = self.matrix.memory()
        crowd = []
        for data in (big, small) * 3:
            raw = self.connect()
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.socket.settimeout(0.5)
            with_timeout(lambda: raw.send(data))  # noqa: B023
            crowd.append(raw)
        time.sleep(BODY + 1)
        self.assertLess(self.matrix.memory() - before, 32 << 20)
        self.matrix.until(
            lambda: self.matrix.metric("matrix_open_streams", kind="http") == 0,
            10,
            "nobody waits for those who do not read",
        )

    def test_a_crowd_of_slow_ones(self) -> None:
        """Nobody else waits for them."""
        crowd = [self.connect() for _ in range(CROWD)]
        for raw in crowd:
            raw.send(b"GET / HTTP/1.1\r\nX: ")
        began = time.monotonic()
        self.seen()
        self.assertLess(time.monotonic() - began, 2)
        for raw in crowd:
            raw.rest()


def with_timeout(send_all: Callable[[], None]) -> None:
    """Send as much as is taken."""
    try:
        send_all()
    except TimeoutError:
        return
