"""
Snapshots of a size that counts, and a store that is killed again and again.

For C{script/snapshots}, not for every run of the tests: by default a gigabyte in 20,000 files,
and a hundred kills. What was measured is printed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from matrix.processes import _supervised, read_pid_file, signal_process
from matrix.snapshots import EmbeddedSeaweed, Keeping, Repositories, S3Store, Shape
from matrix.testing.restic import KnownCredentials, ResticCase

MEGABYTES = int(os.environ.get("SNAPSHOT_TRIAL_MB", "1000"))
KILLS = int(os.environ.get("SNAPSHOT_TRIAL_KILLS", "100"))
OUTAGE = float(os.environ.get("SNAPSHOT_TRIAL_OUTAGE", "120"))
"""Seconds."""
BACKUPS = int(os.environ.get("SNAPSHOT_TRIAL_BACKUPS", "10"))
"""At once, while the store is away. (Each is a process of restic's with some 100 MB.)"""
SEED = int(os.environ.get("SNAPSHOT_TRIAL_SEED", "1"))

MIB = 1 << 20
MEMORY_MIB = 64
"""By how much a transfer may make the service grow, however much is transferred."""

TICK = 0.01
"""Seconds between looks at memory and at how late the event loop is."""


class Gauge:
    """Watches this process: its memory, and how late its event loop is."""

    def __init__(self) -> None:
        self.base = resident()
        self.peak = self.base
        self.late: list[float] = []
        self._last = time.monotonic()
        self._loop = LoopingCall(self._look)
        self._loop.start(TICK)

    def _look(self) -> None:
        now = time.monotonic()
        self.late.append(max(0.0, now - self._last - TICK))
        self._last = now
        self.peak = max(self.peak, resident())

    def stop(self) -> str:
        """The figures."""
        self._loop.stop()
        late = sorted(self.late)
        worst, usual = late[-1] * 1000, late[int(len(late) * 0.99)] * 1000
        return f"memory +{self.grown:.0f} MiB, loop late p99 {usual:.0f} ms, most {worst:.0f} ms"

    @property
    def grown(self) -> float:
        """MiB above what it was."""
        return (self.peak - self.base) / MIB


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class TrialCase(ResticCase, TestCase):
    """A service over an embedded S3 server."""

    reactor = reactor
    timeout = 3600

    async def setUp(self) -> None:
        super().setUp()
        self.patch(_supervised, "REVIVE_SECONDS", 0.2)
        self.seaweed = EmbeddedSeaweed(self.folder / "s3", reactor)
        self.addCleanup(lambda: ensureDeferred(self.seaweed.stop()))
        store = S3Store(await self.seaweed.start(), reactor)
        store.start()
        self.addCleanup(store.stop)
        await store.prepare(Keeping("users/", 7))
        self.bytes_in = 0
        await self.serve(Repositories(store, KnownCredentials(), reactor, Shape()))
        self.factory.finished = self._count
        await self.done("init")
        self.chance = random.Random(SEED)

    def _count(self, exchange: object) -> None:
        self.bytes_in += getattr(exchange, "body_bytes", 0)

    def tell(self, what: str, text: str) -> None:
        """Print what was measured."""
        sys.stdout.write(f"\n[measured] {what}: {text}\n")

    def write(self, path: Path, size: int) -> None:
        """A file of random bytes, with a mode and a time of its own."""
        with path.open("wb") as file:
            for start in range(0, size, MIB):
                file.write(self.chance.randbytes(min(MIB, size - start)))
        path.chmod(self.chance.choice([0o600, 0o644, 0o755]))
        moment = self.chance.randrange(10**9) + 0.25
        os.utime(path, (moment, moment))


class SizeTests(TrialCase):
    """Of a mixed home: many small files, a database, large media, links."""

    async def test_a_home(self) -> None:
        await deferToThread(self.make_home)
        self.tell("home", f"{MEGABYTES} MB, {self.count_files()} files")
        gauge, began, sent = Gauge(), time.monotonic(), self.bytes_in
        await self.backup()
        took = time.monotonic() - began
        self.tell("first snapshot", f"{took:.1f} s, {(self.bytes_in - sent) / MIB:.1f} MiB in")
        self.tell("meanwhile", gauge.stop())
        self.assertLess(gauge.grown, MEMORY_MIB)

        change = min(10, max(1, MEGABYTES // 10))
        await deferToThread(self.write, self.source / "media" / "new", change * MIB)
        began, sent = time.monotonic(), self.bytes_in
        await self.backup()
        took, moved = time.monotonic() - began, (self.bytes_in - sent) / MIB
        self.tell("second snapshot", f"{took:.1f} s, {moved:.1f} MiB in for {change} MiB new")
        self.assertLess(moved, change * 1.5)

        gauge, began = Gauge(), time.monotonic()
        target = self.folder / "restored"
        await self.done("restore", "latest", "--target", str(target))
        self.tell("restore", f"{time.monotonic() - began:.1f} s; {gauge.stop()}")
        self.assertLess(gauge.grown, MEMORY_MIB)
        await deferToThread(self.assert_same, self.source, Path(f"{target}{self.source}"))
        await deferToThread(shutil.rmtree, target)
        await self.sound()

    def make_home(self) -> None:
        """Two hundredths of the size in small files, three tenths in a database."""
        for name in ("small", "media"):
            (self.source / name).mkdir()
        for number in range(20 * MEGABYTES):
            folder = self.source / "small" / f"{number % 97:02}"
            folder.mkdir(exist_ok=True)
            self.write(folder / str(number), self.chance.randrange(2000))
        (self.source / "small" / "link").symlink_to("../media")
        (self.source / "small" / "dangling").symlink_to("nowhere")
        (self.source / "small" / "empty").touch()
        os.link(self.source / "small" / "00" / "0", self.source / "small" / "hard")
        with sqlite3.connect(self.source / "base.sqlite") as base:
            base.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text BLOB)")
            for _ in range(MEGABYTES * 3 // 10 * 16):
                base.execute("INSERT INTO notes (text) VALUES (?)", (self.chance.randbytes(65536),))
        base.close()
        for number in range(4):
            self.write(self.source / "media" / str(number), MEGABYTES * MIB * 17 // 100)

    def count_files(self) -> int:
        """How many files there are in the source."""
        return sum(len(files) for _, _, files in os.walk(self.source))

    def assert_same(self, one: Path, other: Path) -> None:
        """Byte for byte, and in modes, times, links and owners."""
        subprocess.run(["diff", "-r", "--no-dereference", one, other], check=True)
        told = [
            subprocess.run(
                ["find", ".", "-mindepth", "1", "-printf", r"%P %y %m %T@ %n %l %U %G %s\n"],
                cwd=folder,
                check=True,
                capture_output=True,
            ).stdout.splitlines()
            for folder in (one, other)
        ]
        self.assertEqual(sorted(told[0]), sorted(told[1]))


class KillTests(TrialCase):
    """The S3 server is killed amid backups; those called good are good."""

    async def test_kills(self) -> None:
        began = time.monotonic()
        for number in range(KILLS):
            self.fill(4, 2 * MIB, seed=SEED * 10_000 + number)
            running = self.restic("backup", "--json", str(self.source))
            await deferLater(reactor, self.chance.uniform(0.2, 1.2))
            process = read_pid_file(self.folder / "s3" / "seaweedfs.pid")
            assert process is not None
            signal_process(process, signal.SIGKILL)
            ran = await running
            self.assertEqual(ran.code, 0, ran)
            await self.until_revived(number + 1)
            if number % 5 == 4:
                for old in self.source.iterdir():
                    old.unlink()
        self.tell("kills", f"{KILLS} in {time.monotonic() - began:.0f} s")
        await self.done("unlock")
        await self.backup()
        await self.restored_is_the_source()
        await self.sound()

    async def until_revived(self, deaths: int) -> None:
        """A kill in the last moment of a backup is felt by the next one only."""
        for _ in range(200):
            if self.seaweed.deaths >= deaths:
                return
            await deferLater(reactor, 0.05)
        raise self.failureException("the server did not die")


class OutageTests(TrialCase):
    """The store hangs for a while, amid many backups of one repository."""

    async def test_it_hangs(self) -> None:
        self.fill(BACKUPS, 4 * MIB)
        gauge, began = Gauge(), time.monotonic()
        files = sorted(self.source.iterdir())
        running = [self.restic("backup", str(path)) for path in files]
        await deferLater(reactor, 1.0)
        process = read_pid_file(self.folder / "s3" / "seaweedfs.pid")
        assert process is not None
        signal_process(process, signal.SIGSTOP)
        await deferLater(reactor, OUTAGE)
        signal_process(process, signal.SIGCONT)
        for one in running:
            ran = await one
            self.assertEqual(ran.code, 0, ran)
        took = time.monotonic() - began
        self.tell("outage", f"{BACKUPS} backups, {OUTAGE:.0f} s of it; {took:.0f} s in all")
        self.tell("meanwhile", gauge.stop())
        self.assertLess(gauge.grown, MEMORY_MIB)
        await self.done("unlock")
        await self.sound()
