"""Large bodies in both directions: intact, in little memory, and no faster than they are read."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import matrix.testing
from matrix.testing.running import RunningMatrix
from matrix.testing.running_case import MatrixCase
from matrix.testing.wire import Wire, run

MB = 1024 * 1024
SIZE = int(os.environ.get("ACCEPTANCE_TRANSFER_MB", "256")) * MB
GROWTH = 32 * MB
"""What the router's memory may grow by, however long a body is."""

PIPE = 24 * MB
"""What may be on the way between a writer and a reader who stopped: the buffers of three
sockets with both their ends, and of the router. Linux lets a TCP socket's grow to 6 MB each."""

POUR = 512 * MB
STALL = 2.0
"""Seconds without progress after which a writer counts as stopped."""

PROGRAM = Path(matrix.testing.__path__[0], "stream_machine.py")
STREAMS = shlex.join([sys.executable, str(PROGRAM), "{socket}"])


class Watch:
    """How far the router's memory grows while something goes on."""

    def __init__(self, matrix: RunningMatrix) -> None:
        self._matrix = matrix
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.before = self.most = matrix.memory()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, self._matrix.memory())

    @property
    def growth(self) -> int:
        """Bytes."""
        return self.most - self.before

    def __enter__(self) -> Watch:
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self.began
        self._over.set()
        self._thread.join()


def pieces(size: int) -> Iterator[bytes]:
    """So many bytes, no two pieces the same."""
    filler = os.urandom(MB - 8)
    for number in range(size // MB):
        yield number.to_bytes(8, "big") + filler


class IntactTests(MatrixCase):
    def test_up_and_down_again(self) -> None:
        self.ask("alice", "PUT", "/v1/files/small.bin", b"\x00\xff" * MB)
        self.ask("alice", "GET", "/v1/files/small.bin")
        limit = 60 + SIZE / MB
        with Watch(self.matrix) as watch:
            sent = run(self.upload(), limit)
        self.report("up", watch)
        with (self.matrix.workspace("alice") / "large.bin").open("rb") as file:
            self.assertEqual(hashlib.file_digest(file, "sha256").hexdigest(), sent)
        with Watch(self.matrix) as watch:
            received = run(self.download(), limit)
        self.report("down", watch)
        self.assertEqual(received, sent)

    def report(self, way: str, watch: Watch) -> None:
        self.tell(
            f"{SIZE // MB} MB {way}",
            seconds=f"{watch.seconds:.1f}",
            MB_per_s=f"{SIZE / MB / watch.seconds:.0f}",
            memory_before_MB=f"{watch.before / MB:.1f}",
            growth_MB=f"{watch.growth / MB:.1f}",
        )
        self.assertLess(watch.growth, GROWTH)

    async def upload(self) -> str:
        digest = hashlib.sha256()
        async with self.matrix.door.wire(self.matrix.token("alice")) as wire:
            length = ("Content-Length", str(SIZE))
            await wire.begin("PUT", "/v1/files/large.bin", [length])
            for piece in pieces(SIZE):
                digest.update(piece)
                await wire.feed(piece)
            await wire.finish()
            self.assertEqual((await wire.head()).status, 201)
        return digest.hexdigest()

    async def download(self) -> str:
        digest = hashlib.sha256()
        async with self.matrix.door.wire(self.matrix.token("alice")) as wire:
            await wire.begin("GET", "/v1/files/large.bin")
            await wire.finish()
            head = await wire.head()
            self.assertEqual((head.status, head.headers["content-length"]), (200, str(SIZE)))
            async for part in wire.parts():
                digest.update(part)
        return digest.hexdigest()

    def test_an_upload_that_breaks_off_leaves_no_file(self) -> None:
        async def begin() -> None:
            async with self.matrix.door.wire(self.matrix.token("bob")) as wire:
                length = ("Content-Length", str(8 * MB))
                await wire.begin("PUT", "/v1/files/half.bin", [length])
                for piece in pieces(4 * MB):
                    await wire.feed(piece)
                await asyncio.sleep(0.2)

        self.ask("bob", "PUT", "/v1/files/whole.bin", b"whole")
        run(begin())
        time.sleep(0.2)
        listed = self.ask("bob", "GET", "/v1/files/").json()["entries"]
        self.assertEqual([entry["name"] for entry in listed], ["whole.bin"])


class BackPressureTests(MatrixCase):
    """A reader that stops reading stops the writer at the other end."""

    SETTINGS = {"local_command": STREAMS}

    def counts(self, name: str) -> int:
        return int(self.ask("alice", "GET", "/counts").json()[name])

    def test_a_client_that_does_not_read_stops_the_machine(self) -> None:
        self.counts("sent")
        with Watch(self.matrix) as watch:
            sent = run(self.read_nothing())
        self.tell(
            f"machine pouring {POUR // MB} MB to a client that does not read",
            sent_MB=f"{sent / MB:.1f}",
            growth_MB=f"{watch.growth / MB:.1f}",
        )
        self.assertLess(sent, PIPE)
        self.assertLess(watch.growth, GROWTH)

    async def read_nothing(self) -> int:
        """How much the machine could send; then all of it is read."""
        door, token = self.matrix.door, self.matrix.token("alice")
        async with door.wire(token) as wire, door.wire(token) as other:
            await wire.begin("GET", f"/pour?bytes={POUR}")
            await wire.finish()
            before = -1
            while (sent := await self._count(other, "sent")) != before:
                before = sent
                await asyncio.sleep(STALL)
            await wire.head()
            received = 0
            async for part in wire.parts():
                received += len(part)
            self.assertEqual(received, POUR)
        return sent

    async def _count(self, wire: Wire, name: str) -> int:
        return int((await wire.request("GET", "/counts")).json()[name])

    def test_a_machine_that_does_not_read_stops_the_client(self) -> None:
        self.counts("received")
        with Watch(self.matrix) as watch:
            sent = run(self.write_until_stopped())
        self.tell(
            f"client sending {POUR // MB} MB to a machine that does not read",
            sent_MB=f"{sent / MB:.1f}",
            growth_MB=f"{watch.growth / MB:.1f}",
        )
        self.assertLess(sent, PIPE)
        self.assertLess(watch.growth, GROWTH)

    async def write_until_stopped(self) -> int:
        """How much the client could send; then the machine reads all of it."""
        door, token = self.matrix.door, self.matrix.token("alice")
        async with door.wire(token) as wire:
            await wire.begin("PUT", "/swallow", [("Content-Length", str(POUR))])
            sent, stopped_at = 0, None
            for piece in pieces(POUR):
                feeding = asyncio.ensure_future(wire.feed(piece))
                done, _ = await asyncio.wait([feeding], timeout=STALL)
                if not done:
                    stopped_at = stopped_at if stopped_at is not None else sent
                    await door.request("GET", "/drink", token)
                    await feeding
                sent += len(piece)
            await wire.finish()
            self.assertEqual((await wire.head()).status, 200)
        async with door.wire(token) as wire:
            self.assertEqual(await self._count(wire, "received"), POUR)
        assert stopped_at is not None, "nothing stopped the client"
        return stopped_at
