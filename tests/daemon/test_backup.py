"""Taking a snapshot step by step: what is mended, what is tried again, what is told."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon import backup as module
from matrix.daemon.asking import NoAnswer, RestorePoint
from matrix.daemon.backup import Backups, Failed, Progress, Taken
from matrix.daemon.restic import Ran
from matrix.daemon.volume import COPIES, Volume
from matrix.testing.scratch import scratch

GONE = Ran(1, "Fatal: unable to open config file: 404\n")
LOCKED = Ran(1, "repository is already locked exclusively by PID 7\n")
SUMMARY = {
    "message_type": "summary",
    "snapshot_id": "abcd1234",
    "data_added": 10,
    "total_bytes_processed": 20,
}
STATUS = {"message_type": "status", "files_done": 1, "bytes_done": 2, "total_bytes": 3}


class FakeRestic:
    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.ends: dict[str, list[Ran]] = {}
        self.during: Callable[[], None] = lambda: None

    def run(self, *arguments: str, said: Any = None, cwd: Any = None) -> Ran:
        self.ran.append(arguments)
        ends = self.ends.get(arguments[0], [])
        ran = ends.pop(0) if ends else Ran(0, "")
        if arguments[0] == "backup":
            self.during()
            if ran.code in (0, 3):
                said(STATUS)
                said(SUMMARY)
        return ran

    @property
    def verbs(self) -> list[str]:
        return [arguments[0] for arguments in self.ran]


class FakeRouter:
    def __init__(self) -> None:
        self.exists: bool | NoAnswer = False
        self.point: RestorePoint | None = None

    def has_repository(self) -> bool:
        if isinstance(self.exists, NoAnswer):
            raise self.exists
        return self.exists

    def restore_point(self) -> RestorePoint | None:
        return self.point

    def full_id(self, snapshot: str) -> str:
        return snapshot * 8


class BackupCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.volume = Volume(scratch(self))
        self.volume.make()
        self.restic: Any = FakeRestic()
        self.router: Any = FakeRouter()
        self.backups = Backups(self.volume, self.restic, self.router, "alice")
        self.told: list[Progress] = []

    def take(self, only_changes: bool = False) -> Taken | None:
        return self.backups.take(["operator", "operator", "x"], only_changes, self.told.append)

    def taken(self) -> Taken:
        taken = self.take()
        assert taken is not None
        return taken

    def failure(self) -> Failed:
        return self.assertRaises(Failed, self.take)


class TakingTests(BackupCase):
    def test_what_is_told(self) -> None:
        self.assertEqual(self.taken(), Taken("abcd1234" * 8, 10, 20, partial=False))
        self.assertEqual([each.stage for each in self.told], ["quiesce", "backup", "backup"])
        self.assertEqual(self.told[-1], Progress("backup", 1, 2, 3))
        last = self.backups.last()
        assert last is not None
        self.assertEqual((last["snapshot"], last["kind"]), ("abcd1234" * 8, "done"))

    def test_stable_host_and_each_tag_once(self) -> None:
        self.take()
        (arguments,) = self.restic.ran
        self.assertEqual(arguments[arguments.index("--host") + 1], "alice")
        self.assertEqual([a for a in arguments if "tag" in a], ["--tag=operator", "--tag=x"])
        self.assertIn(f"--exclude={self.volume.data}/.matrix", arguments)
        self.assertEqual(arguments[arguments.index("-o") + 1], "rest.connections=2")

    def test_unchanged_data_after_a_restart_too(self) -> None:
        self.take()
        self.backups = Backups(self.volume, self.restic, self.router, "alice")
        self.assertIsNone(self.take(only_changes=True))
        (self.volume.data / "f").touch()
        self.assertIsNotNone(self.take(only_changes=True))
        self.assertEqual(self.restic.verbs, ["backup", "backup"])

    def test_partial_one_is_told_and_does_not_count_as_the_last_state(self) -> None:
        self.restic.ends["backup"] = [Ran(3, "error: open x: permission denied\n")]
        self.assertTrue(self.taken().partial)
        self.assertIsNotNone(self.take(only_changes=True))

    def test_database_written_to_meanwhile_is_copied_in_another_round(self) -> None:
        place = self.volume.data / "app[1].db"
        with closing(sqlite3.connect(place, isolation_level=None)) as database:
            database.execute("CREATE TABLE t (n)")
            self.patch(module, "LIVE", -60.0)  # so that it passes for one that rests

            def write_once() -> None:
                if len(self.restic.verbs) == 1:
                    database.execute("INSERT INTO t VALUES (1)")

            self.restic.during = write_once
            taken = self.taken()
        self.assertEqual((taken.partial, self.restic.verbs), (False, ["backup", "backup"]))
        left_out = f"--exclude={self.volume.data}/app\\[1\\].db"
        self.assertNotIn(left_out, self.restic.ran[0])
        self.assertIn(left_out, self.restic.ran[1])
        self.assertFalse((self.volume.data / COPIES).exists())


class MendingTests(BackupCase):
    def test_first_one_begins_the_repository(self) -> None:
        self.restic.ends["backup"] = [GONE]
        self.taken()
        self.assertEqual(self.restic.verbs, ["backup", "init", "backup"])

    def test_repository_that_vanished_is_not_begun_anew(self) -> None:
        self.restic.ends["backup"] = [GONE]
        self.router.point = RestorePoint("ef" * 32)
        error = self.failure()
        self.assertIn("the repository is gone", str(error))
        self.assertFalse(error.retry)
        self.assertEqual(self.restic.verbs, ["backup"])

    def test_repository_out_of_reach_is_not_begun_anew(self) -> None:
        for exists in (True, NoAnswer("the repository's service answered 503")):
            self.restic.ends["backup"] = [GONE]
            self.router.exists = exists
            self.assertTrue(self.failure().retry)
            self.assertNotIn("init", self.restic.verbs)

    def test_stale_lock_is_removed_once(self) -> None:
        self.restic.ends["backup"] = [LOCKED]
        self.taken()
        self.restic.ends["backup"] = [LOCKED, LOCKED]
        self.assertTrue(self.failure().retry)
        verbs = ["backup", "unlock", "backup"]
        self.assertEqual(self.restic.verbs, verbs + verbs)

    def test_after_a_crash_it_unlocks_first(self) -> None:
        self.volume.in_use.touch()
        self.taken()
        self.assertEqual(self.restic.verbs, ["unlock", "backup"])
        self.taken()
        self.assertEqual(self.restic.verbs[2:], ["backup"])

    def test_stopping_says_so(self) -> None:
        self.restic.ends["backup"] = [Ran(-9, "", stopped=True)]
        self.assertEqual(str(self.failure()), "the daemon stops")
        self.assertTrue(self.volume.in_use.exists())

    def test_what_cannot_be_mended(self) -> None:
        self.restic.ends["backup"] = [Ran(1, "Fatal: out of luck\n")]
        self.assertEqual(str(self.failure()), "out of luck")
        self.assertIsNone(self.backups.last())
