"""Repositories looked after with full rights: thinned out, checked, tried, erased; for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from matrix.model import user_id
from matrix.snapshots import (
    Damaged,
    Desk,
    Keeper,
    RepositoryBusy,
    ResticFailed,
    Rules,
    S3Store,
    Shelf,
    choose,
)
from matrix.snapshots._drill import SCRATCH, sweep_drills
from matrix.snapshots._places import Keys
from matrix.snapshots._s3_wire import S3Place
from matrix.snapshots.interfaces import Reading
from matrix.snapshots.keeper import Thinned
from matrix.testing.restic import ResticCase
from matrix.testing.seaweed import fresh_bucket

PASSWORD = "the-password-of-the-repository"
RULES = Rules(timedelta(days=2), timedelta(days=30), timedelta(days=366))
PREFIX = "users/"

FRESH: dict[str, bytes] = {}
"""The objects of a repository that restic has made and not used: it takes a second to make one,
and the server some files for each bucket."""


async def chunks(reading: Reading) -> AsyncIterator[bytes]:
    """What is read, to its end."""
    while chunk := await reading.read(1 << 16):
        yield chunk


class KeeperTests(ResticCase, TestCase):
    """One repository in a real S3 server, and the real restic."""

    reactor = reactor
    place: S3Place

    async def setUp(self) -> None:
        super().setUp()
        if not hasattr(type(self), "place"):
            type(self).place = fresh_bucket()
        self.store = store = S3Store(self.place, reactor)
        store.start()
        self.addCleanup(store.stop)
        self.alice, self.bob = user_id(str(uuid4())), user_id(str(uuid4()))
        self.desk = Desk(self.place, PREFIX)
        self.keeper = Keeper(reactor, store, self.desk, lambda who: PASSWORD, RULES)
        self.keys = Keys(PREFIX, self.alice)
        self.restic_of_alice = self.keeper.restic(self.alice)
        if not FRESH:
            await self.restic_of_alice.run("init")
            for key in await self.keys_below(self.keys.root):
                FRESH[key.removeprefix(self.keys.root)] = await self.content(key)
        for name, content in FRESH.items():
            await self.put(f"{self.keys.root}{name}", content)

    async def snapshot(self, at: datetime | None = None) -> None:
        """A backup, as if taken at a time."""
        when = ["--time", f"{at:%Y-%m-%d %H:%M:%S}"] if at else []
        await self.restic_of_alice.run("backup", str(self.source), "--host", self.alice, *when)

    async def ids(self) -> list[str]:
        """Of the snapshots that there are, in the order of their times."""
        return [one["id"] for one in await self.restic_of_alice.read("snapshots")]

    async def keys_below(self, prefix: str) -> list[str]:
        return [one.key async for page in self.store.list(prefix) for one in page]

    async def raises(self, kind: type[Exception], call: Any) -> str:
        error = await self.assertFailure(Deferred.fromCoroutine(call), kind)
        return str(error)

    async def test_thinned_out(self) -> None:
        now = datetime.now().replace(minute=30, second=0) - timedelta(hours=3)
        for minutes in (50, 20, 10, 0):
            self.fill(1, 100_000, seed=minutes)
            await self.snapshot(now - timedelta(minutes=minutes))
            (self.source / f"file-{minutes}-0").unlink()
        before = await self.ids()
        noted = {id: datetime.now(UTC) for id in before[:1]}
        thinned = await self.keeper.thin(self.alice, None, {})
        self.assertEqual(thinned.kept, frozenset({before[0], before[3]}), "the last of each hour")
        self.assertEqual(thinned.gone, 2)
        self.assertEqual(await self.ids(), [before[0], before[3]])
        data = 0
        async for page in self.store.list(f"{self.keys.root}data/"):
            data += sum(one.size for one in page)
        self.assertLess(data, 250_000, "what only they needed went too")
        again = await self.keeper.thin(self.alice, thinned.mark, noted)
        self.assertEqual((again.gone, again.mark), (0, thinned.mark))
        await self.restic_of_alice.run("check", "--read-data")

    async def test_what_was_noted_stays_whatever_a_machine_says(self) -> None:
        now = datetime.now().replace(minute=10, second=0) - timedelta(hours=3)
        await self.snapshot(now)
        await self.snapshot(now + timedelta(minutes=30))  # forged: as if later in that hour
        good, forged = await self.ids()
        thinned = await self.keeper.thin(self.alice, None, {good: now.astimezone(UTC)})
        self.assertEqual(thinned.kept, frozenset({good, forged}))

    async def test_nothing_there(self) -> None:
        self.assertEqual(await self.keeper.thin(self.bob, None, {}), Thinned(frozenset(), 0, ""))
        self.assertIsNone(await self.keeper.scrub(self.bob))
        self.assertIsNone(await self.keeper.drill(self.bob))
        self.assertIsNone(await self.keeper.drill(self.alice), "an empty one")
        self.assertEqual(await self.keeper.erase(self.bob), 0)

    async def test_busy_while_a_backup_runs(self) -> None:
        hour = datetime.now().replace(minute=30, second=0) - timedelta(hours=3)
        for minutes in (1, 0):
            await self.snapshot(hour - timedelta(minutes=minutes))
        reading, writing = os.pipe()
        backup = subprocess.Popen(
            self.desk.command("backup", "--stdin"),
            env=self.desk.environment(self.alice, PASSWORD),
            stdin=reading,
            stdout=subprocess.DEVNULL,
        )
        try:
            os.close(reading)
            while not await self.keys_below(f"{self.keys.root}locks/"):
                await deferLater(reactor, 0.05)
            await self.raises(RepositoryBusy, self.keeper.thin(self.alice, None, {}))
        finally:
            os.close(writing)
            backup.wait(30)
        self.assertEqual((await self.keeper.thin(self.alice, None, {})).gone, 1)

    async def test_a_lock_of_one_that_was_killed_is_no_obstacle(self) -> None:
        await self.snapshot()
        backup = subprocess.Popen(
            self.desk.command("backup", "--stdin"),
            env=self.desk.environment(self.alice, PASSWORD),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        while not await self.keys_below(f"{self.keys.root}locks/"):
            await deferLater(reactor, 0.05)
        backup.kill()
        backup.communicate()
        await self.keeper.thin(self.alice, None, {})
        self.assertEqual(await self.keys_below(f"{self.keys.root}locks/"), [])

    async def test_scrubbed(self) -> None:
        self.fill(3, 200_000)
        await self.snapshot()
        scrubbed = await self.keeper.scrub(self.alice)
        assert scrubbed is not None
        self.assertEqual(list(scrubbed.snapshots), await self.ids())
        self.assertGreater(scrubbed.bytes, 600_000)

    async def test_damage_is_found(self) -> None:
        self.fill(3, 200_000)
        await self.snapshot()
        [*packs] = await self.keys_below(f"{self.keys.root}data/")
        size = await self.store.size(packs[0])
        assert size is not None
        await self.put(packs[0], b"x" * size)
        said = await self.raises(Damaged, self.keeper.scrub(self.alice))
        self.assertIn(packs[0], said)

    async def test_what_is_missing_is_found(self) -> None:
        self.fill(1, 1000)
        await self.snapshot()
        for key in await self.keys_below(f"{self.keys.root}index/"):
            await self.store.delete(key)
        said = await self.raises(ResticFailed, self.keeper.scrub(self.alice))
        self.assertIn("restic check ended with 1", said)

    async def content(self, key: str) -> bytes:
        """All of an object."""
        reading = await self.store.read(key)
        try:
            return b"".join([chunk async for chunk in chunks(reading)])
        finally:
            reading.close()

    async def put(self, key: str, content: bytes) -> None:
        """Replace an object behind everybody's back."""
        writing = await self.store.write(key, len(content), replace=True)
        await writing.write([content])
        await writing.commit()

    async def test_a_drill(self) -> None:
        self.fill(3, 200_000)
        (self.source / "closed").mkdir()
        (self.source / "closed" / "file").write_bytes(b"x")
        (self.source / "closed").chmod(0)
        (self.source / "link").symlink_to("nowhere")
        await self.snapshot()
        (self.source / "closed").chmod(0o700)
        drilled = await self.keeper.drill(self.alice)
        assert drilled is not None
        self.assertEqual(drilled.snapshot, (await self.ids())[-1])
        self.assertEqual(drilled.bytes, 600_001)
        self.assertGreater(drilled.seconds, 0)
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        """No drill of ours has left anything."""
        prefix = f"{SCRATCH}{os.getpid()}-"
        self.assertEqual([*Path(tempfile.gettempdir()).glob(f"{prefix}*")], [])

    async def test_a_drill_that_cannot_be(self) -> None:
        self.fill(1, 200_000)
        await self.snapshot()
        for pack in await self.keys_below(f"{self.keys.root}data/"):
            size = await self.store.size(pack)
            await self.put(pack, b"x" * (size or 0))
        said = await self.raises(ResticFailed, self.keeper.drill(self.alice))
        self.assertIn("restic", said)
        self.assert_nothing_left()

    async def test_what_a_killed_drill_left_is_swept(self) -> None:
        for number in (2**22 + 1, os.getpid()):
            (self.folder / f"{SCRATCH}{number}-x" / "closed").mkdir(parents=True, mode=0o500)
        self.assertEqual(sweep_drills(self.folder), 1)
        left = [one.name for one in self.folder.glob(f"{SCRATCH}*")]
        self.assertEqual(left, [f"{SCRATCH}{os.getpid()}-x"])

    async def test_erased(self) -> None:
        self.fill(3, 200_000)
        await self.snapshot()
        await self.put(f"{PREFIX}{self.bob}/config", b"bob's")
        there = await self.keys_below(self.keys.root)
        self.assertEqual(await self.keeper.erase(self.alice), len(there))
        self.assertEqual(
            await self.keys_below(f"{PREFIX}{self.bob}"), [f"{PREFIX}{self.bob}/config"]
        )
        self.assertEqual(await self.keeper.erase(self.alice), 0)

    async def brought(self, target: Path, only: str | None = None) -> None:
        """The newest snapshot, or something of it, on the box."""
        shelf = Shelf(self.desk, self.alice, PASSWORD)

        def bring() -> None:
            shelf.bring(choose(shelf.snapshots()), target, ".copies", only)

        await deferToThread(bring)

    async def test_brought_back_to_a_folder_or_in_part(self) -> None:
        self.fill(2, 100_000)
        (self.source / "no[te]s *").mkdir()
        (self.source / "no[te]s *" / "a").write_text("a")
        (self.source / "notes").write_text("another")
        (self.source / ".copies" / "db").mkdir(parents=True)
        (self.source / ".copies" / "db" / "x.sqlite").write_text("the copy")
        command = self.desk.command("backup", ".")
        environment = self.desk.environment(self.alice, PASSWORD)
        await deferToThread(
            subprocess.run, command, env=environment, cwd=self.source, check=True, stdout=-3
        )
        (self.source / "db").mkdir()
        (self.source / ".copies" / "db" / "x.sqlite").rename(self.source / "db" / "x.sqlite")
        shutil.rmtree(self.source / ".copies")

        target = self.folder / "brought"
        await self.brought(target)
        compared = subprocess.run(["diff", "-r", self.source, target], capture_output=True)
        self.assertEqual(compared.stdout, b"")
        await self.raises(FileExistsError, self.brought(target))

        for path in ("no[te]s *", "/no[te]s */a", "db/x.sqlite"):
            part = self.folder / f"part-{path.count('/')}-{len(path)}"
            await self.brought(part, path)
            one, other = self.source / path.lstrip("/"), part
            compared = subprocess.run(["diff", "-r", one, other], capture_output=True)
            self.assertEqual(compared.stdout + compared.stderr, b"")
        for path in ("nowhere", "/", "../etc/passwd"):
            said = await self.raises(ResticFailed, self.brought(self.folder / "none", path))
            self.assertIn(path, said)
        left = {one.name for one in self.folder.iterdir() if one.name.startswith(".")}
        self.assertEqual(left, set(), "nothing half-way is left")

    async def test_no_secret_is_told(self) -> None:
        desk = Desk(self.desk.place, "nobody/")
        keeper = Keeper(reactor, self.store, desk, lambda who: "hush-" * 8, RULES)
        said = await self.raises(ResticFailed, keeper.restic(self.alice).run("snapshots"))
        self.assertNotIn("hush", said + repr(desk))
        self.assertNotIn(self.desk.place.secret_key, said + repr(desk))
        self.assertIn("restic snapshots ended with", said)
