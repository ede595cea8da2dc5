"""An orderly stop: everything ends, in time, and nobody is left with half an answer."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from unittest import TestCase

import h11
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import matrix.testing
from matrix.testing.running import RunningMatrix
from matrix.testing.running_case import MatrixCase
from matrix.testing.wire import Door, Wire, run

STOP = 10.0
"""Seconds within which everything has ended, requests under way included."""

PROGRAM = Path(matrix.testing.__path__[0], "stream_machine.py")
STREAMS = shlex.join([sys.executable, str(PROGRAM), "{socket}"])
MB = 1024 * 1024


class StopTests(TestCase):
    def stop(self, matrix: RunningMatrix, how: signal.Signals) -> float:
        """Stop it and look at what is left; seconds that it took."""
        began = time.monotonic()
        status = matrix.stop(how)
        seconds = time.monotonic() - began
        # Twisted ends by the signal that stopped it, which is what a shell or systemd expects.
        self.assertIn(status, (0, -how))
        self.assertEqual(matrix.processes(), [])
        self.assertFalse((matrix.state / "run.json").exists())
        self.assertNotIn("Traceback", matrix.output())
        self.assertNotIn("Unhandled", matrix.output())
        self.assertLess(seconds, STOP)
        sys.stdout.write(f"\n[measured] {how.name}: all ended after {seconds:.2f} s\n")
        return seconds

    def test_ctrl_c_ends_everything_and_the_next_start_finds_everything(self) -> None:
        matrix = RunningMatrix()
        self.addCleanup(matrix.close)
        matrix.start()
        token = matrix.token("alice")
        put = matrix.door.ask("PUT", "/v1/files/kept.txt", token, body=b"kept")
        self.assertEqual(put.status, 201)
        matrix.door.ask("GET", "/v1/files/", matrix.token("bob"))
        matrix.suspend("bob")  # one awake and one asleep
        self.stop(matrix, signal.SIGINT)

        matrix.start()
        kept = matrix.door.ask("GET", "/v1/files/kept.txt", token)
        self.assertEqual((kept.status, kept.body), (200, b"kept"))
        self.stop(matrix, signal.SIGTERM)

    def test_requests_under_way_are_finished_and_streams_ended(self) -> None:
        matrix = RunningMatrix(local_command=STREAMS)
        self.addCleanup(matrix.close)
        matrix.start()
        run(self.stop_under_load(matrix))

    async def stop_under_load(self, matrix: RunningMatrix) -> None:
        token, door = matrix.token("alice"), matrix.door
        wires = [await door.open(token) for _ in range(5)]
        short, stream, stuck, idle, upload = wires
        await begin(short, f"/pour?bytes={64 * MB}")
        await begin(stream, "/events?every=0.05&count=10000")
        await begin(stuck, f"/pour?bytes={1024 * MB}")
        await upload.begin("PUT", "/swallow", [("Content-Length", str(MB))])
        await upload.feed(b"x" * 1000)
        self.assertEqual((await idle.request("GET", "/counts")).status, 200)
        for wire in (short, stream, stuck):
            self.assertEqual((await wire.head()).status, 200)
        async with connect(
            f"wss://{door.host}:{door.port}/ws",
            ssl=door.context,
            additional_headers={"Authorization": f"Bearer {token}"},
            proxy=None,
        ) as socket:
            await socket.send("now?")
            await socket.recv()
            stopping = asyncio.to_thread(self.stop, matrix, signal.SIGINT)
            closed, finished, events, cut, _ = await asyncio.gather(
                close_of(socket),
                body_of(short),
                body_of(stream),
                outcome_of(upload),
                stopping,
            )
        self.assertEqual(finished, 64 * MB, "an answer under way is finished")
        self.assertGreater(events, 0, "a stream ends with its last chunk")
        self.assertEqual((closed.rcvd.code, closed.rcvd.reason), (1012, "restart"))
        self.assertIsInstance(cut, OSError | h11.RemoteProtocolError | int)
        with self.assertRaises((OSError, h11.RemoteProtocolError)):
            await body_of(stuck)  # cut, and known to be: never taken for whole
        for wire in wires:
            wire.close()


async def begin(wire: Wire, target: str) -> None:
    await wire.begin("GET", target)
    await wire.finish()


async def body_of(wire: Wire) -> int:
    """Bytes of a body; h11 raises if it does not end properly."""
    return sum([len(part) async for part in wire.parts()])


async def outcome_of(wire: Wire) -> object:
    """The status of the answer, or how it failed."""
    try:
        return (await wire.head()).status
    except (OSError, h11.RemoteProtocolError) as error:
        return error


async def close_of(socket: object) -> ConnectionClosed:
    try:
        while True:
            await socket.recv()  # type: ignore[attr-defined]
    except ConnectionClosed as closed:
        return closed


class AnyServerTests(TestCase):
    """Any HTTP server can be a user's machine."""

    def test_pythons_own_on_a_port(self) -> None:
        command = "python3 -m http.server {port} --bind 127.0.0.1"
        matrix = RunningMatrix(local_command=command, idle=1.5)
        self.addCleanup(matrix.close)
        matrix.start()
        door, token = matrix.door, matrix.token("alice")
        listing = door.ask("GET", "/", token)
        self.assertEqual(listing.status, 200)
        self.assertIn(b"Directory listing", listing.body)
        file = matrix.state / "machines" / matrix.user_id("alice") / "data" / "hello.txt"
        file.write_text("hello")
        self.assertEqual(door.ask("GET", "/hello.txt", token).body, b"hello")
        self.assertEqual(door.ask("GET", "/-/healthz", token).status, 200)
        self.assertEqual(door.ask("GET", "/healthz", token).status, 404)
        matrix.until(lambda: matrix.events("alice", "suspend"), 15, "it sleeps")
        woken = door.ask("GET", "/hello.txt", token)
        self.assertEqual((woken.status, woken.body), (200, b"hello"))
        self.assertTrue(woken.headers["matrix-wake"].startswith("suspended;"))


class SmallServerTests(MatrixCase):
    """One that has room for five connections in its queue and answers one after the other."""

    SETTINGS = {
        "local_command": shlex.join(
            [sys.executable, str(PROGRAM.with_name("machine_program.py")), "{socket}"]
        )
    }

    def test_on_a_unix_socket(self) -> None:
        told = self.ask("alice", "GET", "/report").json()
        self.assertEqual(told["environment"]["MATRIX_USER"], self.matrix.user_id("alice"))
        self.assertNotIn("PORT", told["environment"])
        if os.geteuid() == 0:
            self.assertNotEqual(told["ids"][0], 0)

    def test_a_crowd_is_let_in_one_by_one(self) -> None:
        statuses = run(crowd(self.matrix.door, self.matrix.token("alice"), 200))
        self.assertEqual(statuses, [200] * 200)
        self.assertLessEqual(len(self.matrix.events("alice", "wake")), 1)


async def crowd(door: Door, token: str, count: int) -> list[int]:
    asked = [door.request("GET", "/report", token) for _ in range(count)]
    return [answer.status for answer in await asyncio.gather(*asked)]
