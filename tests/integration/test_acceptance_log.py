"""The access log and the metrics of a real router, over requests of every sort."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shlex
import signal
import ssl
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import matrix.testing
from matrix.testing.running_case import MatrixCase
from matrix.testing.wire import run

PROGRAM = Path(matrix.testing.__path__[0], "stream_machine.py")
SECRET = "s3cr3t"
JWT = f"eyJhbGciOiJFUzI1NiJ9.{SECRET}.{SECRET}"
CLIENT = "198.51.100.7"
HOST = b"Host: h\r\n"

ALWAYS = {"time", "id", "method", "path", "status", "bytes_in", "bytes_out", "total_ms", "client"}
TIMES = {
    "handshake": 1.0,
    "head": 0.7,
    "body": 0.7,
    "response": 1.0,
    "keepalive": 0.7,
    "stream": 1.0,
}
LOAD = 3000
"""Requests while the log is rotated."""

Line = dict[str, Any]


class LogCase(MatrixCase):
    """A router whose limits are short, and that trusts a proxy on this machine."""

    SETTINGS: ClassVar[dict[str, Any]] = {
        "local_command": shlex.join([sys.executable, str(PROGRAM), "{socket}"]),
        "trusted_proxies": "127.0.0.1, ::1",
        **{f"{name}_timeout": seconds for name, seconds in TIMES.items()},
    }

    @property
    def log(self) -> Path:
        return Path(self.matrix.state, "access.log")

    def setUp(self) -> None:
        self.token = self.matrix.token("alice")
        self.auth = b"Authorization: Bearer %b\r\n" % self.token.encode()
        self.ask("alice", "GET", "/warm")

    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.log.read_bytes().split(b"\n")[:-1]]

    def line(self, mark: str, count: int = 1) -> Line:
        """The line of the request whose target holds a mark, once it is written."""
        found: list[Line] = []

        def is_there() -> bool:
            found[:] = [line for line in self.lines() if mark in line["path"]]
            return len(found) >= count

        self.matrix.until(is_there, 10, f"the log has {mark}")
        self.assertEqual(len(found), count, found)
        line = found[-1]
        self.assertLessEqual(ALWAYS, line.keys())
        self.assertNotIn(SECRET, self.log.read_text())
        self.assertEqual(line["tls"], "TLSv1.3")
        return line

    def say(self, data: bytes, wait: float = 5.0, read: bool = True) -> bytes:
        """What is answered to bytes on a connection of their own, to its end."""

        async def talk() -> bytes:
            door = self.matrix.door
            reader, writer = await asyncio.open_connection(door.host, door.port, ssl=door.context)
            writer.write(data)
            answer = b""
            try:
                while read and (part := await asyncio.wait_for(reader.read(65536), wait)):
                    answer += part
            except (TimeoutError, ConnectionError, ssl.SSLError):
                pass
            writer.transport.abort()
            return answer

        return run(talk())

    def timeouts(self, limit: str) -> float:
        return float(self.matrix.metric("matrix_timeouts_total", limit=limit))


class SortTests(LogCase):
    """One request of each sort, and the line it leaves."""

    def test_served(self) -> None:
        head = b"POST /served?token=%b&x=1 HTTP/1.1\r\n%b%bX-Forwarded-For: %b\r\n" % (
            SECRET.encode(), HOST, self.auth, CLIENT.encode(),
        )  # fmt: skip
        self.say(head + b"Cookie: a=%b\r\nContent-Length: 5\r\n\r\n12345" % SECRET.encode(), 0.5)
        line = self.line("/served")
        self.assertEqual(line["path"], "/served?token=REDACTED&x=1")
        self.assertEqual((line["method"], line["status"], line["bytes_in"]), ("POST", 200, 5))
        self.assertEqual((line["client"], line["user"]), (CLIENT, self.matrix.user_id("alice")))
        self.assertGreater(line["bytes_out"], 0)
        self.assertLessEqual({"auth_ms", "route_ms", "upstream_ms"}, line.keys())
        self.assertNotIn("close", line)

    def test_woken(self) -> None:
        self.matrix.suspend("alice")
        self.ask("alice", "GET", "/woken")
        line = self.line("/woken")
        self.assertEqual(line["wake"], "request")
        self.assertLessEqual({"wake_ms", "ready_ms"}, line.keys())

    def test_refused_before_it_is_known_who_asks(self) -> None:
        door = self.matrix.door
        door.ask("GET", "/nobody")
        self.assertEqual(door.ask("GET", f"/nobody2?access_token={JWT}").status, 401)
        self.assertEqual(door.ask("GET", "/nobody3", token=JWT).status, 401)
        for mark in ("/nobody2", "/nobody3"):
            line = self.line(mark)
            self.assertEqual(line["status"], 401)
            self.assertNotIn("user", line)
            self.assertIn("close", line)

    def test_malformed(self) -> None:
        for data, path, close in (
            (b"GET /bad1?token=%b HTTP/1.1\r\n%bBad Header\r\n\r\n", "/bad1?token=REDACTED", None),
            (b"GET /bad2 x?token=%b HTTP/1.1\r\n%b\r\n", "/bad2", "request-line"),
            (b"GET /bad3?apikey=%b HTTP/9\r\n%b\r\n", "/bad3?apikey=REDACTED", "request-line"),
        ):
            answer = self.say(data % (SECRET.encode(), HOST))
            self.assertTrue(answer.startswith(b"HTTP/1.1 400"), answer)
            line = self.line(path[:5])
            self.assertEqual((line["path"], line["status"]), (path, 400))
            self.assertEqual(line["close"], close or "field-colon")

    def test_what_cannot_be_told_is_left_out(self) -> None:
        before = len(self.refused())
        for data in (
            b"Bearer " + SECRET.encode() + b"\r\n\r\n",
            SECRET.encode() + b"\r\n\r\n",
            b"Cookie: sb=" + SECRET.encode() + b"\r\n\r\n",
            b"GET /\xff" + SECRET.encode() + b" HTTP/1.1\r\n\r\n",
            b'GET /"\\\n' + SECRET.encode() + b" HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01" + SECRET.encode() + b"\r\n\r\n",
        ):
            self.assertIn(b" 400 ", self.say(data))
        self.matrix.until(lambda: len(self.refused()) == before + 6, 5, "they are logged")
        for line in self.refused()[before:]:
            self.assertEqual((line["method"], line["path"], line["status"]), ("", "", 400))
        self.assertNotIn(SECRET, self.log.read_text())

    def refused(self) -> list[Line]:
        return [line for line in self.lines() if line["status"] == 400]

    def test_too_long(self) -> None:
        self.say(b"GET /long/%b HTTP/1.1\r\n%b\r\n" % (b"x" * 17_000, HOST))
        line = self.line("/long/")
        self.assertEqual((line["status"], line["close"]), (414, "target"))
        self.say(b"GET /fat HTTP/1.1\r\n%bX: %b\r\n\r\n" % (HOST, b"x" * 70_000))
        line = self.line("/fat")
        self.assertEqual((line["status"], line["close"]), (431, "head"))
        self.assertGreater(self.matrix.metric("matrix_refused_total", reason="target"), 0)

    def test_client_that_leaves(self) -> None:
        async def leave() -> None:
            async with self.matrix.door.wire(self.token) as wire:
                await wire.begin("GET", "/events?every=9&count=2&left=1")
                await wire.finish()
                await asyncio.sleep(0.3)

        run(leave())
        line = self.line("left=1")
        self.assertEqual((line["status"], line["close"]), (499, "client-gone"))

    def test_event_stream(self) -> None:
        self.ask("alice", "GET", "/events?every=0.01&count=5&whole=1")
        line = self.line("whole=1")
        self.assertEqual(line["status"], 200)
        self.assertGreater(line["total_ms"], 40)

    def test_websocket(self) -> None:
        head = (
            b"GET /ws?n=1 HTTP/1.1\r\n%b%bConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ) % (HOST, self.auth)
        self.say(head + b"\x81\x80abcd" + b"\x88\x80abcd")
        line = self.line("/ws?n=1")
        self.assertEqual((line["status"], line["bytes_in"]), (101, 12))

    def test_upgrade_that_is_refused(self) -> None:
        head = b"GET /plain?up=1 HTTP/1.1\r\n%b%bConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"
        self.assertIn(b" 200 ", self.say(head % (HOST, self.auth)))
        self.assertEqual(self.line("up=1")["status"], 200)

    def test_pipelined(self) -> None:
        one = b"GET /pipe HTTP/1.1\r\n%b%b\r\n" % (HOST, self.auth)
        self.assertEqual(self.say(one * 3, 0.5).count(b"HTTP/1.1 200"), 3)
        self.line("/pipe", 3)


class LimitTests(LogCase):
    """Each limit of time ends what it is for, is counted, and is named in the log."""

    def passes(self, limit: str, data: bytes, status: int, mark: str, **options: Any) -> None:
        before = self.timeouts(limit)
        began = time.monotonic()
        self.say(data, **options)
        self.assertLess(time.monotonic() - began, 5)
        line = self.line(mark)
        self.assertEqual((line["status"], line["close"]), (status, limit))
        self.assertEqual(self.timeouts(limit), before + 1)

    def test_head(self) -> None:
        self.passes("head-time", b"GET /slow-head HTTP/1.1\r\nHos", 408, "/slow-head")

    def test_head_that_never_begins(self) -> None:
        before = self.timeouts("head-time")
        self.assertEqual(self.say(b""), b"")
        self.assertEqual(self.timeouts("head-time"), before + 1)

    def test_body(self) -> None:
        head = b"POST /swallow?b=1 HTTP/1.1\r\n%b%bContent-Length: 9\r\n\r\n12" % (HOST, self.auth)
        self.passes("body-silence", head, 408, "?b=1")

    def test_first_byte(self) -> None:
        head = b"POST /swallow?q=1 HTTP/1.1\r\n%b%bContent-Length: 0\r\n\r\n" % (HOST, self.auth)
        self.passes("first-byte", head, 504, "q=1")

    def test_stream(self) -> None:
        head = b"GET /events?every=9&count=2&dull=1 HTTP/1.1\r\n%b%b\r\n" % (HOST, self.auth)
        self.passes("stream-silence", head, 200, "dull=1")

    def test_client_that_does_not_read(self) -> None:
        before = self.timeouts("client-silence")
        head = b"GET /pour?bytes=99942400 HTTP/1.1\r\n%b%b\r\n" % (HOST, self.auth)

        async def stare() -> None:
            door = self.matrix.door
            # A reader that is paused for good: its buffers fill, then the kernel's.
            _, writer = await asyncio.open_connection(
                door.host, door.port, ssl=door.context, limit=1024
            )
            writer.write(head)
            await asyncio.to_thread(
                self.matrix.until, lambda: self.timeouts("client-silence") > before, 20, "time out"
            )
            writer.transport.abort()

        run(stare())
        line = self.line("/pour")
        self.assertEqual((line["status"], line["close"]), (200, "client-silence"))

    def test_keep_alive(self) -> None:
        before = self.timeouts("keep-alive")
        head = b"GET /kept HTTP/1.1\r\n%b%b\r\n" % (HOST, self.auth)
        self.assertIn(b"HTTP/1.1 200", self.say(head))
        self.assertNotIn("close", self.line("/kept"))
        self.assertEqual(self.timeouts("keep-alive"), before + 1)

    def test_handshake(self) -> None:
        before = self.timeouts("handshake")

        async def mute() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.matrix.door.port)
            try:
                return await reader.read(1)
            except ConnectionError:
                return b""
            finally:
                writer.close()

        self.assertEqual(run(mute(), 5), b"")
        self.assertEqual(self.timeouts("handshake"), before + 1)


class FileTests(LogCase):
    """What happens to the file happens to no request."""

    def load(self, mark: str, count: int) -> None:
        async def one(numbers: range) -> None:
            async with self.matrix.door.wire(self.token) as wire:
                for number in numbers:
                    await wire.request("GET", f"/{mark}/{number}")

        async def all_of_them() -> None:
            await asyncio.gather(*(one(range(start, count, 8)) for start in range(8)))

        run(all_of_them())

    def numbers(self, mark: str, *files: Path) -> list[int]:
        start = f"/{mark}/"
        lines = b"".join(file.read_bytes() for file in files).split(b"\n")
        paths = [json.loads(line)["path"] for line in lines if line.endswith(b"}")]
        return sorted(int(path.removeprefix(start)) for path in paths if path.startswith(start))

    def test_rotation_under_load_loses_no_line(self) -> None:
        moved: list[Path] = []

        async def rotate() -> None:
            loading = asyncio.create_task(asyncio.to_thread(self.load, "turn", LOAD))
            while not loading.done():
                moved.append(self.log.with_suffix(f".{len(moved)}"))
                self.log.rename(moved[-1])
                os.kill(self.matrix.pid, signal.SIGHUP)
                while not self.log.exists():
                    await asyncio.sleep(0.02)
            await loading

        run(rotate())
        self.matrix.until(
            lambda: len(self.numbers("turn", *moved, self.log)) == LOAD, 10, "all are written"
        )
        self.assertEqual(self.numbers("turn", *moved, self.log), [*range(LOAD)])
        self.assertGreater(len(moved), 2)
        self.tell("rotations under load", requests=LOAD, rotations=len(moved))

    def test_a_file_that_takes_no_more(self) -> None:
        errors = self.matrix.metric("matrix_access_log_errors_total")
        limit, hard = resource.prlimit(self.matrix.pid, resource.RLIMIT_FSIZE)
        full = self.log.stat().st_size + 300  # in the middle of a line
        resource.prlimit(self.matrix.pid, resource.RLIMIT_FSIZE, (full, hard))
        self.load("full", 100)
        self.matrix.until(
            lambda: self.matrix.metric("matrix_access_log_errors_total") > errors, 10, "it fails"
        )
        self.assertEqual(self.log.stat().st_size, full)
        self.assertEqual(self.ask("alice", "GET", "/still-served").status, 200)
        resource.prlimit(self.matrix.pid, resource.RLIMIT_FSIZE, (limit, hard))
        self.matrix.until(lambda: len(self.numbers("full", self.log)) == 100, 10, "it recovers")
        self.assertEqual(self.matrix.metric("matrix_access_log_dropped_total"), 0)
