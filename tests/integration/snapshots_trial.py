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
from tests.trials.home import DATABASE_SHARE, MIB, differences, listing, make_home, write

MEGABYTES = int(os.environ.get("SNAPSHOT_TRIAL_MB", "1000"))
KILLS = int(os.environ.get("SNAPSHOT_TRIAL_KILLS", "100"))
OUTAGE = float(os.environ.get("SNAPSHOT_TRIAL_OUTAGE", "120"))
"""Seconds."""
BACKUPS = int(os.environ.get("SNAPSHOT_TRIAL_BACKUPS", "10"))
"""At once, while the store is away. (Each is a process of restic's with some 100 MB.)"""
SEED = int(os.environ.get("SNAPSHOT_TRIAL_SEED", "1"))

ROW = 65536
"""Bytes of a row in the database."""
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


class SizeTests(TrialCase):
    """Of a mixed home: many small files, a database, large media, links."""

    async def test_a_home(self) -> None:
        await deferToThread(self.make_home)
        count = len(await deferToThread(listing, self.source))
        self.tell("home", f"{MEGABYTES} MB, {count} files, folders and links")
        gauge, began, sent = Gauge(), time.monotonic(), self.bytes_in
        await self.backup()
        took = time.monotonic() - began
        self.tell("first snapshot", f"{took:.1f} s, {(self.bytes_in - sent) / MIB:.1f} MiB in")
        self.tell("meanwhile", gauge.stop())
        self.assertLess(gauge.grown, MEMORY_MIB)

        change = min(10, max(1, MEGABYTES // 10))
        await deferToThread(write, self.source / "media" / "new", change * MIB, self.chance)
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
        there = await deferToThread(listing, Path(f"{target}{self.source}"))
        wanted = await deferToThread(listing, self.source)
        self.assertEqual(differences(wanted, there)[:20], [])
        await deferToThread(shutil.rmtree, target)
        await self.sound()

    def make_home(self) -> None:
        """As users have them, a database at rest among it."""
        make_home(self.source, MEGABYTES, self.chance)
        with sqlite3.connect(self.source / "base.sqlite") as base:
            base.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text BLOB)")
            for _ in range(int(MEGABYTES * DATABASE_SHARE * MIB) // ROW):
                base.execute("INSERT INTO notes (text) VALUES (?)", (self.chance.randbytes(ROW),))
        base.close()


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
