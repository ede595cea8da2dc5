"""The daemon as a user's machine runs it: a process, a socket, a disk, other programs."""

import hashlib
import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import unix_connect

from matrix.testing.daemon_process import START_LIMIT, TOKEN, Client, DaemonProcess
from matrix.testing.scratch import scratch

MEGA = 1024 * 1024


class DaemonCase(TestCase):
    """The daemon runs in a process of its own; the tests are its blocking clients."""

    def setUp(self) -> None:
        self.daemon = DaemonProcess(scratch(self))
        self.addCleanup(self.daemon.stop)
        self.daemon.ready()

    def client(self) -> Client:
        client = self.daemon.client()
        self.addCleanup(client.socket.close)
        return client

    def eventually(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 10
        while not condition():
            if time.monotonic() > end:
                self.fail(f"not within 10 s: {what}")
            time.sleep(0.01)


class FileTests(DaemonCase):
    def uploads(self) -> int:
        return len(os.listdir(self.daemon.data / ".incoming"))

    def test_whole_life_of_a_file(self) -> None:
        client = self.client()
        json_type = {"content_type": "application/json"}
        self.assertEqual(client.call("POST", "/v1/files/d", b'{"op":"mkdir"}', **json_type)[0], 201)
        status, fields, _ = client.call("PUT", "/v1/files/d/f.txt", b"hello")
        self.assertEqual((status, fields["location"]), (201, "/v1/files/d/f.txt"))
        status, again, content = client.call("GET", "/v1/files/d/f.txt", range="bytes=1-2")
        self.assertEqual((status, content, again["etag"]), (206, b"el", fields["etag"]))
        status, _, content = client.call("GET", "/v1/files/d/f.txt", if_none_match=fields["etag"])
        self.assertEqual((status, content), (304, b""))
        move = b'{"op":"move","to":"g.txt"}'
        self.assertEqual(client.call("POST", "/v1/files/d/f.txt", move, **json_type)[0], 201)
        names = [e["name"] for e in json.loads(client.call("GET", "/v1/files/")[2])["entries"]]
        self.assertEqual(names, ["d", "g.txt"])
        self.assertEqual(client.call("DELETE", "/v1/files/g.txt")[0], 204)
        self.assertEqual(client.call("DELETE", "/v1/files/d")[0], 204)
        self.assertEqual(list(self.daemon.root.iterdir()), [])

    def test_error_is_a_problem_and_the_connection_goes_on(self) -> None:
        client = self.client()
        for path, status in (("/v1/files/../x", 400), ("/v1/files/x", 404), ("/x", 404)):
            answered, fields, content = client.call("GET", path)
            self.assertEqual(
                (answered, fields["content-type"]), (status, "application/problem+json")
            )
            self.assertEqual(json.loads(content)["status"], status)

    def test_token_is_asked_for_and_kept_secret(self) -> None:
        status, fields, content = self.client().call("GET", "/", authorization="Bearer guess")
        self.assertEqual((status, fields["www-authenticate"]), (401, "bearer"))
        environment = Path(f"/proc/{self.daemon.process.pid}/environ").read_bytes()
        self.assertIn(TOKEN.encode(), environment)  # what it was started with stays readable
        self.daemon.stop()
        self.assertNotIn(TOKEN, self.daemon.log.read_text() + content.decode())
        self.assertNotIn("guess", self.daemon.log.read_text())

    def test_upload_cut_short_leaves_the_old_file_and_nothing_else(self) -> None:
        self.client().call("PUT", "/v1/files/f", b"old")
        before = self.daemon.descriptors()
        for _ in range(3):
            client = self.daemon.client()
            client.send("PUT", "/v1/files/f", b"half", content_length=str(10 * MEGA))
            self.eventually(lambda: self.uploads() == 1, "the upload begins")
            client.socket.close()
            self.eventually(lambda: self.uploads() == 0, "the half is cleared away")
        self.assertEqual((self.daemon.root / "f").read_bytes(), b"old")
        self.eventually(lambda: self.daemon.descriptors() <= before, "files are closed")

    def test_chunked_upload(self) -> None:
        client = self.client()
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (b"one", b"two" * 1000))
        client.send("PUT", "/v1/files/f", transfer_encoding="chunked")
        client.socket.sendall(chunks + b"0\r\n\r\n")
        self.assertEqual(client.head()[0], 201)
        self.assertEqual((self.daemon.root / "f").read_bytes(), b"one" + b"two" * 1000)

    def test_file_that_cannot_fit_is_refused_before_it_is_sent(self) -> None:
        client = self.client()
        client.send("PUT", "/v1/files/f", content_length=str(2**50))
        status, fields = client.head()
        self.assertEqual(status, 507)
        self.assertIn("disk", json.loads(client.body(fields))["detail"])


class StreamingTests(DaemonCase):
    """Large bodies pass through little memory, at the pace of the slower side."""

    SIZE = 192 * MEGA

    def upload(self) -> str:
        """Send C{SIZE} bytes; their hash."""
        client, digest = self.client(), hashlib.sha256()
        client.send("PUT", "/v1/files/big", content_length=str(self.SIZE))
        for number in range(self.SIZE // MEGA):
            piece = hashlib.sha256(b"%d" % number).digest() * (MEGA // 32)
            digest.update(piece)
            client.socket.sendall(piece)
        self.assertEqual(client.head()[0], 201)
        return digest.hexdigest()

    def test_large_file_goes_up_and_comes_down_whole_in_constant_memory(self) -> None:
        before = self.daemon.memory()
        sent = self.upload()
        client, digest, left = self.client(), hashlib.sha256(), self.SIZE
        client.send("GET", "/v1/files/big")
        self.assertEqual(client.head()[1]["content-length"], str(self.SIZE))
        digest.update(client.rest)
        left -= len(client.rest)
        while left:
            data = client.socket.recv(MEGA)
            self.assertTrue(data, "cut off")
            left -= len(data)
            digest.update(data)
        self.assertEqual(digest.hexdigest(), sent)
        self.assertLess(self.daemon.memory("VmHWM") - before, 16 * MEGA)

    def test_reader_that_stops_reading_stops_the_reading_of_the_file(self) -> None:
        self.upload()
        client = self.client()
        client.send("GET", "/v1/files/big")
        client.head()

        def read() -> int:
            counts = Path(f"/proc/{self.daemon.process.pid}/io").read_text()
            return int(counts.split()[1])

        self.eventually(lambda: read() > 0, "some of it is read")
        time.sleep(0.3)
        before = read()
        time.sleep(0.3)
        self.assertEqual(read(), before, "nothing is read while the client does not")
        self.assertEqual(self.client().call("GET", "/healthz")[0], 200)

    def test_slow_disk_stops_the_client(self) -> None:
        """The daemon is frozen: what the kernel's buffers take is all that leaves."""
        client = self.client()
        client.send("PUT", "/v1/files/big", content_length=str(self.SIZE))
        os.kill(self.daemon.process.pid, signal.SIGSTOP)
        try:
            client.socket.settimeout(0.3)
            with self.assertRaises(TimeoutError):
                client.socket.sendall(bytes(16 * MEGA))
        finally:
            os.kill(self.daemon.process.pid, signal.SIGCONT)


class EventTests(DaemonCase):
    def timed(self, client: Client, act: Callable[[], object]) -> tuple[dict[str, Any], float]:
        begin = time.monotonic()
        act()
        event = client.event()
        return event, time.monotonic() - begin

    def test_changes_of_other_programs_arrive_in_time(self) -> None:
        client = self.client()
        client.events()
        (self.daemon.root / "d").mkdir()
        self.assertEqual(client.event()["path"], "d")
        delays = []
        for number in range(20):
            file = self.daemon.root / "d" / str(number)
            event, delay = self.timed(client, file.touch)
            self.assertEqual((event["kind"], event["path"]), ("created", f"d/{number}"))
            delays.append(delay)
        self.assertLess(sorted(delays)[len(delays) // 2], 0.05, delays)

    def test_each_change_of_our_own_is_told_once(self) -> None:
        stream, client = self.client(), self.client()
        stream.events()
        told = []
        for _ in range(2):
            client.call("PUT", "/v1/files/f", b"x")
            told.append(stream.event())
        client.call("POST", "/v1/files/d", b'{"op":"mkdir"}', content_type="application/json")
        told.append(stream.event())
        move = b'{"op":"move","to":"d/g"}'
        client.call("POST", "/v1/files/f", move, content_type="application/json")
        told.append(stream.event())
        client.call("DELETE", "/v1/files/d?recursive=true")
        told.append(stream.event())
        client.call("PUT", "/v1/files/end", b"")
        told.append(stream.event())
        self.assertEqual(
            [(event["kind"], event.get("from"), event["path"]) for event in told],
            [
                ("created", None, "f"),
                ("modified", None, "f"),
                ("created", None, "d"),
                ("moved", "f", "d/g"),
                ("deleted", None, "d"),
                ("created", None, "end"),
            ],
        )

    def test_stream_resumes_where_it_broke(self) -> None:
        first = self.client()
        first.events()
        (self.daemon.root / "one").touch()
        seen = first.event()["id"]
        first.socket.close()
        (self.daemon.root / "two").touch()
        second = self.client()
        second.send("GET", "/v1/events", last_event_id=seen)
        self.assertEqual(second.event()["path"], "two")

    def test_websocket(self) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with unix_connect(
            str(self.daemon.place), "ws://machine/v1/events/ws", additional_headers=headers
        ) as websocket:
            self.assertTrue(websocket.ping().wait(5))
            (self.daemon.root / "f").touch()
            event = json.loads(websocket.recv(5))
            self.assertEqual((event["kind"], event["path"]), ("created", "f"))
        self.assertEqual(websocket.close_code, 1000)

    def test_stopping_ends_streams_and_sockets_properly(self) -> None:
        stream = self.client()
        stream.events()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with unix_connect(
            str(self.daemon.place), "ws://machine/v1/events/ws", additional_headers=headers
        ) as websocket:
            self.daemon.process.terminate()
            self.assertTrue(stream.until(b"0\r\n\r\n").endswith(b"0\r\n\r\n"))
            self.assertRaises(ConnectionClosedError, websocket.recv, 5)
            self.assertEqual(websocket.close_code, 1012)
        # twistd ends by the signal that ended it.
        self.assertEqual(self.daemon.process.wait(10), -signal.SIGTERM)
        self.assertFalse(self.daemon.place.exists())


class ProcessTests(TestCase):
    def start(self, top: Path, **environment: str) -> DaemonProcess:
        daemon = DaemonProcess(top, **environment)
        self.addCleanup(daemon.stop)
        return daemon

    def ended(self, daemon: DaemonProcess) -> str:
        self.assertEqual(daemon.process.wait(START_LIMIT), 1)
        (line,) = daemon.log.read_text().splitlines()
        return line

    def test_socket_is_private_and_a_stale_one_is_replaced(self) -> None:
        top = scratch(self)
        first = self.start(top)
        first.ready()
        self.assertEqual(stat.S_IMODE(first.place.stat().st_mode), 0o600)
        first.process.kill()
        first.process.wait()
        self.assertTrue(first.place.exists())
        self.start(top).ready()

    def test_crash_in_an_upload_is_swept_up_at_the_next_start(self) -> None:
        top = scratch(self)
        first = self.start(top)
        first.ready()
        client = first.client()
        self.addCleanup(client.socket.close)
        client.send("PUT", "/v1/files/f", bytes(MEGA), content_length=str(10 * MEGA))
        incoming = first.data / ".incoming"
        while not list(incoming.iterdir()):
            time.sleep(0.01)
        first.process.kill()
        first.process.wait()
        self.assertEqual(len(list(incoming.iterdir())), 1)
        self.start(top).ready()
        self.assertEqual(list(incoming.iterdir()), [])
        self.assertFalse((first.root / "f").exists())

    def test_place_in_use_ends_with_one_line(self) -> None:
        top = scratch(self)
        self.start(top).ready()
        second = DaemonProcess(top)
        second.process.wait(START_LIMIT)
        self.assertEqual(second.process.returncode, 1)
        self.assertIn("another program listens there already", second.log.read_text())

    def test_no_token_ends_with_one_line(self) -> None:
        daemon = self.start(scratch(self), MATRIX_MACHINE_TOKEN="")
        self.assertIn("MATRIX_MACHINE_TOKEN is not set", self.ended(daemon))

    def test_frozen_and_thawed_it_goes_on(self) -> None:
        daemon = self.start(scratch(self))
        daemon.ready()
        stream = daemon.client()
        self.addCleanup(stream.socket.close)
        stream.events()
        daemon.process.send_signal(signal.SIGSTOP)
        (daemon.root / "while-asleep").touch()
        daemon.process.send_signal(signal.SIGCONT)
        self.assertEqual(stream.event()["path"], "while-asleep")
