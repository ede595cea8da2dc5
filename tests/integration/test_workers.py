"""Several workers behave as one daemon, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import TestCase

import h11
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import matrix.testing
from matrix.testing.running import RunningMatrix, is_running
from matrix.testing.running_case import MatrixCase
from matrix.testing.wire import Door, Wire, run

WORKERS = 3
IDLE = 2.0
"""Seconds."""

PROGRAM = Path(matrix.testing.__path__[0], "stream_machine.py")
STREAMS = shlex.join([sys.executable, str(PROGRAM), "{socket}"])
SETTINGS = {"workers": WORKERS, "local_command": STREAMS}

MOST_WIRES = 400
"""Connections that are opened until each worker has some: the kernel spreads them by chance."""


async def place(wire: Wire) -> str:
    """Which worker serves a connection: its request ids begin with a name of its own."""
    answer = await wire.request("GET", "/counts")
    assert answer.status == 200, answer
    return answer.headers["x-request-id"].partition("-")[0]


@asynccontextmanager
async def spread(
    door: Door, token: str, each: int = 1, workers: int = WORKERS
) -> AsyncIterator[list[list[Wire]]]:
    """So many connections to each worker, by worker."""
    found: dict[str, list[Wire]] = defaultdict(list)
    opened: list[Wire] = []
    try:
        while len(found) < workers or min(map(len, found.values())) < each:
            assert len(opened) < MOST_WIRES, f"not all workers serve: {found.keys()}"
            wire = await door.open(token)
            opened.append(wire)
            found[await place(wire)].append(wire)
        yield [wires[:each] for wires in found.values()]
    finally:
        for wire in opened:
            wire.close()


async def events_end(wire: Wire) -> int:
    """Bytes of an event stream; h11 raises if it does not end properly."""
    return sum([len(part) async for part in wire.parts()])


class SharingTests(MatrixCase):
    """Machines that several workers have in use."""

    # A crowd whose last is there before the first asks: on a busy host that takes a while.
    SETTINGS = {**SETTINGS, "idle": IDLE, "handshake_timeout": 60, "head_timeout": 60}

    def suspends(self, user: str) -> int:
        return len(self.matrix.events(user, "suspend"))

    def test_all_workers_serve_one_user(self) -> None:
        async def work() -> None:
            async with spread(self.matrix.door, self.matrix.token("alice"), each=3) as groups:
                self.assertEqual(len(groups), WORKERS)

        run(work())
        self.assertEqual(len(set(self.matrix.workers())), WORKERS)
        self.assertEqual(len(self.matrix.machine_processes("alice")), 1)

    def test_use_through_one_keeps_it_awake_for_all(self) -> None:
        async def work() -> None:
            async with spread(self.matrix.door, self.matrix.token("bob")) as groups:
                before = self.suspends("bob")
                [wire] = groups[0]
                until = time.monotonic() + 5 * IDLE
                while time.monotonic() < until:
                    answer = await wire.request("GET", "/counts")
                    self.assertEqual(answer.status, 200)
                    self.assertNotIn("matrix-wake", answer.headers)
                    await asyncio.sleep(IDLE / 8)
                self.assertEqual(self.suspends("bob"), before)

        run(work())
        self.until_asleep("bob")

    def test_a_request_under_way_through_one_keeps_it_awake_for_all(self) -> None:
        async def work() -> None:
            token, door = self.matrix.token("carol"), self.matrix.door
            async with spread(door, token) as groups:
                [upload], [other], *_ = groups
                await upload.begin("PUT", "/swallow", [("Content-Length", "2000")])
                await upload.feed(b"x" * 1000)
                before = self.suspends("carol")
                for _ in range(round(4 * IDLE)):
                    await asyncio.sleep(1)
                    await upload.feed(b"x" * 100)
                self.assertEqual(self.suspends("carol"), before)
                self.assertEqual((await other.request("GET", "/drink")).status, 200)
                await upload.feed(b"x" * (1000 - 100 * round(4 * IDLE)))
                await upload.finish()
                self.assertEqual((await upload.head()).status, 200)

        run(work())

    def test_a_suspend_ends_streams_at_all_workers(self) -> None:
        async def work() -> None:
            token, door = self.matrix.token("dave"), self.matrix.door
            async with spread(door, token) as groups:
                for [wire] in groups:
                    await wire.begin("GET", "/events?every=0.1&count=100000")
                    await wire.finish()
                    self.assertEqual((await wire.head()).status, 200)
                sockets = [
                    await connect(
                        f"wss://{door.host}:{door.port}/ws",
                        ssl=door.context,
                        additional_headers={"Authorization": f"Bearer {token}"},
                        proxy=None,
                    )
                    for _ in range(4 * WORKERS)
                ]
                await asyncio.to_thread(self.matrix.suspend, "dave")
                for [wire] in groups:
                    self.assertGreater(await events_end(wire), 0)
                for socket in sockets:
                    with self.assertRaises(ConnectionClosed) as caught:
                        await socket.recv()
                    assert caught.exception.rcvd is not None
                    self.assertEqual(
                        (caught.exception.rcvd.code, caught.exception.rcvd.reason),
                        (1012, "suspended"),
                    )

        run(work())
        self.assertEqual(self.states("dave"), {"T"})
        self.assertEqual(self.matrix.events("dave", "suspend")[0]["cause"], "operator")

    def test_a_crowd_at_all_workers_makes_one_start(self) -> None:
        token, door = self.matrix.token("erin"), self.matrix.door

        async def crowd(count: int) -> list[int]:
            wires = []
            for _ in range(count // 50):
                wires += await asyncio.gather(*[door.open(token) for _ in range(50)])
            try:
                asked = [wire.request("GET", "/counts") for wire in wires]
                return [answer.status for answer in await asyncio.gather(*asked)]
            finally:
                for wire in wires:
                    wire.close()

        self.assertEqual(run(crowd(400)), [200] * 400)
        self.assertEqual(len(self.matrix.events("erin", "wake")), 1, "the first start")
        self.matrix.suspend("erin")
        self.assertEqual(run(crowd(400)), [200] * 400)
        self.assertEqual(len(self.matrix.events("erin", "wake")), 2, "and one more")
        self.assertEqual(len(self.matrix.machine_processes("erin")), 1)

    def test_progress_of_a_wake_is_told_by_any_worker(self) -> None:
        async def work() -> list[bytes]:
            async with spread(self.matrix.door, self.matrix.token("frank")) as groups:
                await asyncio.to_thread(self.matrix.suspend, "frank")
                for [wire] in groups:
                    await wire.begin("GET", "/-/wake/events")
                    await wire.finish()
                    await wire.head()
                return [b"".join([part async for part in wire.parts()]) for [wire] in groups]

        for told in run(work()):
            self.assertIn(b"event: progress", told)
            self.assertIn(b"event: ready", told)

    def test_a_worker_that_was_stalled_gets_its_machine_back(self) -> None:
        async def work() -> None:
            token, door = self.matrix.token("grace"), self.matrix.door
            async with spread(door, token) as groups:
                [upload], [other], *_ = groups
                await upload.begin("PUT", "/swallow", [("Content-Length", "1000")])
                await upload.feed(b"x" * 500)
                stalled = await asyncio.to_thread(self.server_of, upload)
                os.kill(stalled, signal.SIGSTOP)
                try:
                    await asyncio.to_thread(self.until_asleep, "grace")
                finally:
                    os.kill(stalled, signal.SIGCONT)
                await upload.feed(b"x" * 500)
                await upload.finish()
                self.assertEqual((await other.request("GET", "/drink")).status, 200)
                answer = await upload.head()
                self.assertEqual(answer.status, 200)

        run(work())
        self.assertEqual(len(self.matrix.machine_processes("grace")), 1)

    def server_of(self, wire: Wire) -> int:
        """The worker process that has the other end of a connection."""
        port = wire.writer.get_extra_info("sockname")[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[2].rpartition(":")[2], 16) == port:
                    inode = f"socket:[{fields[9]}]"
                    for pid in self.matrix.workers():
                        folder = f"/proc/{pid}/fd"
                        names = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
                        if inode in names:
                            return pid
        raise AssertionError("nobody has it")


class DeathTests(MatrixCase):
    """Workers and supervisors that die."""

    SETTINGS = SETTINGS

    def counted(self) -> float:
        return self.matrix.metric("matrix_requests_total", status="2xx", kind="proxied")

    def test_a_killed_worker_breaks_its_own_connections_only(self) -> None:
        token, door = self.matrix.token("alice"), self.matrix.door
        counts: list[float] = []

        async def work() -> None:
            async with spread(door, token, each=2) as groups:
                before = self.matrix.workers()
                await asyncio.sleep(6)  # for what all have counted to be asked for
                counts.append(await asyncio.to_thread(self.counted))
                await asyncio.to_thread(os.kill, before[0], signal.SIGKILL)
                broken, whole = 0, 0
                for group in groups:
                    for wire in group:
                        try:
                            await place(wire)
                            whole += 1
                        except (OSError, h11.RemoteProtocolError):
                            broken += 1
                self.assertEqual((broken, whole), (2, 4))
                began = time.monotonic()
                for _ in range(20):  # whoever comes now is served by the others
                    self.assertEqual((await door.request("GET", "/counts", token)).status, 200)
                counts.append(await asyncio.to_thread(self.counted))
                self.assertLess(time.monotonic() - began, 10)
            self.matrix.until(lambda: len(self.matrix.workers()) == WORKERS, 30, "it is replaced")
            counts.append(await asyncio.to_thread(self.counted))
            async with spread(door, token):
                counts.append(await asyncio.to_thread(self.counted))

        run(work(), 90)
        self.assertEqual(counts, sorted(counts))
        self.assertGreaterEqual(counts[1], counts[0] + 24)
        self.assertEqual(self.matrix.metric("matrix_worker_restarts_total", reason="died"), 1)
        self.assertEqual(self.matrix.metric("matrix_workers", state="up"), WORKERS)
        self.assertIn("worker 1 ended by signal 9", self.matrix.output())

    def test_no_worker_outlives_a_supervisor_that_is_killed(self) -> None:
        token = self.matrix.token("alice")
        self.matrix.door.ask("GET", "/counts", token)
        workers = self.matrix.workers()
        self.matrix.kill()
        self.matrix.until(lambda: not any(map(is_running, workers)), 10, "the workers are gone")
        self.matrix.start()
        self.assertEqual(self.matrix.door.ask("GET", "/counts", token).status, 200)
        self.assertEqual(len(self.matrix.machine_processes("alice")), 1)


class OneDaemonTests(MatrixCase):
    """Signals, start and stop are those of one process."""

    SETTINGS = SETTINGS

    def test_a_stop_finishes_what_is_under_way_and_leaves_nothing(self) -> None:
        for how in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(how=how.name):
                workers = self.matrix.workers()
                said = len(self.matrix.output())
                run(self.stop_under_load(how))
                self.assertEqual(self.matrix.processes(), [])
                self.assertFalse(any(map(is_running, workers)))
                self.assertFalse((self.matrix.state / "run.json").exists())
                for word in ("Traceback", "Unhandled", "the supervisor is gone"):
                    self.assertNotIn(word, self.matrix.output()[said:])
                self.matrix.start()

    async def stop_under_load(self, how: signal.Signals) -> None:
        matrix = self.matrix
        token, door = matrix.token("alice"), matrix.door
        async with spread(door, token, each=2) as groups:
            for pour, stream in groups:
                await pour.begin("GET", f"/pour?bytes={32 << 20}")
                await stream.begin("GET", "/events?every=0.05&count=10000")
                for wire in (pour, stream):
                    await wire.finish()
                    self.assertEqual((await wire.head()).status, 200)
            began = time.monotonic()
            stopping = asyncio.to_thread(matrix.stop, how)
            bodies = [events_end(wire) for group in groups for wire in group]
            status, *sizes = await asyncio.gather(stopping, *bodies)
        self.assertIn(status, (0, -how))
        self.assertEqual(sizes[::2], [32 << 20] * WORKERS, "answers under way are finished")
        self.assertTrue(all(sizes[1::2]), "streams end with their last chunk")
        self.assertLess(time.monotonic() - began, 10)

    def test_each_worker_goes_on_in_a_new_access_log(self) -> None:
        matrix = self.matrix
        log, old = matrix.state / "access.log", matrix.state / "access.log.1"
        run(ask_all(matrix))
        matrix.until(lambda: log.read_text().count("\n") >= 30, 10, "it is written")
        log.rename(old)
        os.kill(matrix.pid, signal.SIGHUP)
        matrix.until(log.exists, 10, "there is a new one")
        time.sleep(1.5)
        before = old.read_bytes()
        run(ask_all(matrix))
        matrix.until(lambda: log.read_text().count("\n") >= 30, 10, "all write to it")
        self.assertEqual(old.read_bytes(), before, "nobody writes to the old one")
        for line in (*old.read_text().splitlines(), *log.read_text().splitlines()):
            json.loads(line)

    def test_secrets_are_in_no_argument(self) -> None:
        secret = (self.matrix.state / "master-secret").read_text().strip()
        for pid in self.matrix.workers():
            for name in ("cmdline", "environ"):
                self.assertNotIn(secret, Path(f"/proc/{pid}/{name}").read_text())


async def ask_all(matrix: RunningMatrix) -> None:
    """Ten requests at least of each worker."""
    async with spread(matrix.door, matrix.token("alice"), each=10):
        pass


class AccessLogTests(TestCase):
    """Where all workers write to."""

    def test_whole_lines_on_a_standard_output_that_all_share(self) -> None:
        matrix = RunningMatrix(**SETTINGS, access_log="-")
        self.addCleanup(matrix.close)
        matrix.start()
        run(ask_all(matrix))
        matrix.until(lambda: len(self.records(matrix)) >= 30, 10, "it is written")

    def records(self, matrix: RunningMatrix) -> list[Any]:
        return [json.loads(line) for line in matrix.output().splitlines() if line[:1] == "{"]

    def test_what_no_worker_can_do_ends_the_start_with_one_line(self) -> None:
        matrix = RunningMatrix(**SETTINGS, access_log="/nowhere/access.log")
        self.addCleanup(matrix.close)
        with self.assertRaises(AssertionError) as caught:
            matrix.start()
        text = str(caught.exception)
        self.assertIn("Matrix ended with 1", text)
        [line] = [line for line in text.splitlines() if line.startswith("matrix: ")]
        self.assertRegex(line, r"matrix: worker \d: MATRIX_ACCESS_LOG: cannot open /nowhere/")
        self.assertNotIn("Traceback", text)
        self.assertEqual(matrix.processes(), [])
