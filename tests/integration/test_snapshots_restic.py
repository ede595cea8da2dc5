"""The real restic client against the repository service, at its best and at its worst."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from matrix.snapshots import MemoryStore, Repositories, S3Store, Shape
from matrix.snapshots.repository import _Visit
from matrix.testing.restic import ALICE, BOB, OPERATOR, KnownCredentials, Ran, ResticCase
from matrix.testing.seaweed import fresh_bucket

MIB = 1 << 20

FRESH: dict[str, bytes] = {}
"""The objects of a repository that restic has made and not used: made once, for it takes
restic a second to choose the cost of its password's hash."""


class CutOff:
    """An exchange whose answer is lost on its way: the connection breaks instead."""

    def __init__(self, exchange: Any) -> None:
        self._exchange = exchange

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchange, name)

    def respond(self, *args: object) -> None:
        self._exchange.abort()


class LossyRepositories(Repositories):
    """Loses some answers after the work was done."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lost: dict[str, int] = {}
        """How many answers were lost, by kind of file."""

    async def _save(self, visit: _Visit) -> None:
        kind = str(visit.place.kind)
        if self.lost.get(kind, 0) < 2:
            self.lost[kind] = self.lost.get(kind, 0) + 1
            visit = replace(visit, exchange=CutOff(visit.exchange))
        await super()._save(visit)


class MemoryCase(ResticCase, TestCase):
    """A service over a store in memory, with a repository in it."""

    reactor = reactor
    make: Callable[..., Repositories] = Repositories
    shape = Shape()

    async def setUp(self) -> None:
        super().setUp()
        self.store = MemoryStore()
        self.repositories = type(self).make(self.store, KnownCredentials(), reactor, self.shape)
        if not FRESH:
            await self.serve(Repositories(self.store, KnownCredentials(), reactor, Shape()))
            await self.done("init")
            FRESH.update(self.store.objects)
        self.store.objects.update(FRESH)
        await self.serve(self.repositories)

    def assert_named_by_hash(self) -> None:
        """Every stored file is what its name says, and nothing else is there."""
        for key, content in self.store.objects.items():
            if not key.endswith("/config"):
                self.assertEqual(key.rpartition("/")[2], hashlib.sha256(content).hexdigest())
        self.assertEqual(self.store.begun, set())

    def refused(self, ran: Ran, said: str) -> None:
        """A run failed, and told why."""
        self.assertNotEqual(ran.code, 0, ran)
        self.assertIn(said, ran.err)


class LifeTests(ResticCase, TestCase):
    """Over a real S3 server, with files large enough for parts."""

    reactor = reactor

    async def test_a_repositorys_life(self) -> None:
        store = S3Store(fresh_bucket(), reactor, single_bytes=6 * MIB, part_bytes=5 * MIB)
        store.start()
        self.addCleanup(store.stop)
        await self.serve(Repositories(store, KnownCredentials(), reactor, Shape()))
        await self.done("init")
        self.fill(3, 6 * MIB)
        self.fill(20, 1000, seed=2)
        await self.backup()
        self.fill(1, 3 * MIB, seed=3)
        second = (await self.backup()).lines[-1]
        self.assertLess(second["data_added"], 4 * MIB)
        await self.restored_is_the_source()

        # The machine cannot make anything undone; whoever has full rights can.
        first = (await self.done("snapshots", "--json")).lines[0][0]["id"]
        self.assertIn("403", await self.complaint("forget", first, text="403"))
        await self.done("unlock")
        self.assertEqual(len((await self.done("snapshots", "--json")).lines[0]), 2)
        operator = self.url(password=OPERATOR)
        await self.done("forget", "--prune", first, url=operator)
        self.assertEqual(len((await self.done("snapshots", "--json")).lines[0]), 1)
        await self.sound()


class WorstTests(MemoryCase):
    """Things break, and the backup is whole all the same."""

    async def test_killed_amid_a_backup(self) -> None:
        self.fill(12, 4 * MIB)
        process = self.start("backup", "-o", "rest.connections=2", str(self.source))
        while not any("/data/" in key for key in self.store.objects):
            await deferLater(reactor, 0.01)
        process.kill()
        process.communicate()
        self.assertEqual(process.returncode, -signal.SIGKILL)
        await deferLater(reactor, 0.2)
        self.assert_named_by_hash()
        await self.backup()
        await self.restored_is_the_source()
        await self.done("unlock")
        await self.sound()

    async def test_a_store_that_is_down_for_a_while(self) -> None:
        self.fill(12, 4 * MIB)
        running = self.restic("backup", str(self.source))
        while not any("/data/" in key for key in self.store.objects):
            await deferLater(reactor, 0.01)
        self.store.down = True
        await deferLater(reactor, 2.0)
        self.store.down = False
        ran = await running
        self.assertEqual(ran.code, 0, ran)
        self.assertIn("retrying after", ran.err)
        self.assert_named_by_hash()
        await self.restored_is_the_source()
        await self.sound()

    async def test_two_backups_of_the_same_at_once(self) -> None:
        self.fill(4, 4 * MIB)
        await gatherResults([Deferred.fromCoroutine(self.backup()) for _ in range(2)])
        self.assert_named_by_hash()
        await self.restored_is_the_source()
        await self.sound()

    async def test_a_repository_in_trouble_is_not_made_anew(self) -> None:
        self.store.down = True
        self.refused(await self.restic("init"), "503")
        self.store.down = False
        self.refused(await self.restic("init"), "config file already exists")
        self.assertEqual(self.store.objects, FRESH)


class LossyTests(MemoryCase):
    """The answers to the first uploads of each kind are lost after the work was done."""

    make = LossyRepositories

    async def test_lost_answers(self) -> None:
        self.fill(6, 4 * MIB)
        await self.backup()
        self.assertEqual(set(self.repositories.lost), {"locks", "data", "index", "snapshots"})  # type: ignore[attr-defined]
        self.assert_named_by_hash()
        await self.restored_is_the_source()
        await self.sound()


class FullTests(MemoryCase):
    """The quota is reached: at once and clearly, and what is there stays usable."""

    shape = Shape(quota=12 * MIB)

    async def test_over_the_quota(self) -> None:
        self.fill(1, 6 * MIB)
        await self.backup()
        self.fill(1, 8 * MIB, seed=2)
        self.assertIn("507", await self.complaint("backup", str(self.source), text="507"))
        await self.done("unlock")
        (self.source / "file-2-0").unlink()
        await self.restored_is_the_source()
        await self.sound()


class OthersTests(MemoryCase):
    """Another user's repository cannot be told from one that is not there."""

    async def test_not_ones_own(self) -> None:
        before = dict(self.store.objects)
        for password, said in (("bobs-credential", "401"), ("wrong", "401")):
            ran = await self.restic("snapshots", url=self.url(ALICE, password))
            self.refused(ran, said)
        mine = self.url(BOB).replace(f"/restic/{BOB}/", f"/restic/{ALICE}/")
        for command in (["snapshots"], ["init"]):
            self.refused(await self.restic(*command, url=mine), "403")
        self.assertEqual(self.store.objects, before)
