"""Bringing data home: whatever a crash leaves, the next boot ends with all of it, once."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon import home as module
from matrix.daemon.asking import NoAnswer, RestorePoint
from matrix.daemon.home import Home, NotYet, settle
from matrix.daemon.restic import Ran
from matrix.daemon.volume import COPIES, Volume
from matrix.testing.scratch import scratch

SNAPSHOT = "ab" * 32


class FakeRouter:
    def __init__(self, point: RestorePoint | NoAnswer | None) -> None:
        self.point = point
        self.asked = 0

    def restore_point(self) -> RestorePoint | None:
        self.asked += 1
        if isinstance(self.point, NoAnswer):
            raise self.point
        return self.point


class FakeRestic:
    """Restores a small tree, or fails as it is told to."""

    def __init__(self) -> None:
        self.runs = 0
        self.ends = Ran(0, "")

    def run(self, *arguments: str) -> Ran:
        self.runs += 1
        verb, snapshot, option, target = arguments
        assert (verb, snapshot, option) == ("restore", SNAPSHOT, "--target")
        folder = Path(target)
        (folder / "workspace" / "src").mkdir(parents=True)
        (folder / "workspace" / "src" / "a").write_text("alpha")
        (folder / ".bashrc").write_text("dots too")
        place = folder / COPIES / "workspace" / "src"
        place.mkdir(parents=True)
        (place / "app.db").write_text("a database")
        os.utime(folder / "workspace" / "src", (10**9, 10**9))
        return self.ends

    def written(self) -> int:
        return 12

    def collect(self, *arguments: str) -> tuple[Ran, bytes]:
        return Ran(0, ""), b'{"total_size": 34}'


class Crash(BaseException):
    """Where the power went."""


class HomeCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = scratch(self) / "data"
        self.data.mkdir()
        self.volume = Volume(self.data)
        self.volume.make()
        self.patch(os, "sync", lambda: None)  # The host's disks need not wait for these tests.
        self.router = FakeRouter(RestorePoint(SNAPSHOT, 34))
        self.restic: Any = FakeRestic()

    def home(self) -> Home:
        router: Any = self.router
        return Home(self.volume, router, self.restic)

    def assert_restored(self) -> None:
        self.assertTrue(self.home().is_whole)
        seen = {
            str(path.relative_to(self.data)): path.read_text() if path.is_file() else None
            for path in self.data.rglob("*")
            if ".matrix" not in path.parts
        }
        self.assertEqual(
            seen,
            {
                ".bashrc": "dots too",
                "workspace": None,
                "workspace/src": None,
                "workspace/src/a": "alpha",
                "workspace/src/app.db": "a database",
            },
        )
        self.assertEqual((self.data / "workspace" / "src").stat().st_mtime, 10**9)


class BringTests(HomeCase):
    def test_empty_volume_gets_the_newest_snapshot(self) -> None:
        self.home().bring()
        self.assert_restored()
        self.assertEqual(os.listdir(self.volume.private), ["whole.json"])

    def test_what_is_whole_is_left_alone(self) -> None:
        self.home().bring()
        (self.data / "workspace" / "src" / "a").unlink()
        self.home().bring()
        self.assertFalse((self.data / "workspace" / "src" / "a").exists())
        self.assertEqual((self.router.asked, self.restic.runs), (1, 1))

    def test_without_a_snapshot_it_begins_empty(self) -> None:
        self.router.point = None
        self.home().bring()
        self.assertTrue(self.home().is_whole)
        self.assertEqual(self.restic.runs, 0)

    def test_nobody_knowing_is_not_that_there_is_none(self) -> None:
        self.router.point = NoAnswer("the router answered 503")
        error = self.assertRaises(NotYet, self.home().bring)
        self.assertIn("503", str(error))
        self.assertFalse(self.home().is_whole)

    def test_volume_with_data_from_before_is_whole(self) -> None:
        (self.data / "workspace").mkdir()
        (self.data / "workspace" / "old").touch()
        self.home().bring()
        self.assertEqual(self.router.asked, 0)
        self.assertTrue((self.data / "workspace" / "old").exists())

    def test_what_the_image_or_the_file_system_made_is_no_data(self) -> None:
        for name in ("lost+found", ".incoming", ".cache", "workspace"):
            (self.data / name).mkdir()
        (self.data / ".cache" / "x").touch()
        self.home().bring()
        self.assertTrue((self.data / "workspace" / "src" / "a").exists())

    def test_without_snapshots_nothing_is_asked(self) -> None:
        home = Home(self.volume, None, None)
        self.assertTrue(home.look())

    def test_without_restic_it_waits(self) -> None:
        self.restic = None
        error = self.assertRaises(NotYet, self.home().bring)
        self.assertIn("restic", str(error))

    def test_failed_restore_begins_anew(self) -> None:
        self.restic.ends = Ran(1, "Fatal: Load(<data/abc>) failed\n")
        for _ in range(2):
            error = self.assertRaises(NotYet, self.home().bring)
            self.assertIn("Load", str(error))
        self.assertFalse((self.data / "workspace").exists())
        self.restic.ends = Ran(0, "")
        self.home().bring()
        self.assert_restored()
        self.assertEqual(os.listdir(self.volume.private), ["whole.json"])

    def test_faults_of_marks_alone_keep_nobody_out(self) -> None:
        self.restic.ends = Ran(
            1,
            "ignoring error for /workspace/src/a: lchown /x/a: operation not permitted\n"
            "Fatal: There were 1 errors\n",
        )
        self.home().bring()
        self.assert_restored()
        self.flushLoggedErrors()

    def test_progress(self) -> None:
        home = self.home()
        home.bring()
        self.assertEqual((home.done(), home.total), (12, 34))

    def test_size_is_asked_for_where_the_router_does_not_know_it(self) -> None:
        self.router.point = RestorePoint(SNAPSHOT)
        home = self.home()
        with patch.object(module.threading, "Thread", _AtOnce):
            home.bring()
        self.assertEqual(home.total, 34)

    def test_folders_closed_to_us_are_swept_too(self) -> None:
        closed = self.volume.private / "restore-1" / "a"
        closed.mkdir(parents=True)
        (closed / "b").touch()
        closed.chmod(0)
        closed.parent.chmod(0o500)
        self.home().bring()
        self.assertFalse(closed.parent.exists())


class _AtOnce:
    """A thread that has run when it has started."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> None:
        self.start = lambda: target(*args)


class CrashTests(HomeCase):
    """The process ends before or after each thing that it does to the volume."""

    STEPS = ("os.rename", "os.replace", "os.utime", "os.sync", "write_whole", "shutil.rmtree")

    def bring_with_a_crash(self, at: int, after: bool) -> bool:
        """Whether it came to a crash at that step."""
        left = [at]

        def crashing(real: Callable[..., Any]) -> Callable[..., Any]:
            def step(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                is_it = left[0] == 0
                if is_it and not after:
                    raise Crash
                result = real(*arguments, **options)
                if is_it:
                    raise Crash
                return result

            return step

        patches = []
        for name in self.STEPS:
            owner: Any = module
            *path, last = name.split(".")
            for part in path:
                owner = getattr(owner, part)
            patches.append(patch.object(owner, last, crashing(getattr(owner, last))))
        try:
            for each in patches:
                each.start()
            self.home().bring()
        except Crash:
            return True
        finally:
            for each in patches:
                each.stop()
        return False

    def test_each_step(self) -> None:
        for after in (False, True):
            at = 0
            crashed = True
            while crashed:
                at += 1
                self.setUp()
                crashed = self.bring_with_a_crash(at, after)
                self.home().bring()
                self.assert_restored()
            self.assertGreater(at, 12)

    def test_two_crashes_in_a_row(self) -> None:
        for first in range(1, 12):
            for second in range(1, 8):
                self.setUp()
                self.bring_with_a_crash(first, after=True)
                self.bring_with_a_crash(second, after=False)
                self.home().bring()
                self.assert_restored()


class SettleTests(SynchronousTestCase):
    def test_copies_take_their_places(self) -> None:
        top = scratch(self)
        copy = top / COPIES / "gone" / "app.db"
        copy.parent.mkdir(parents=True)
        copy.write_text("x")
        copy.chmod(0o640)
        settle(top)
        self.assertEqual([p.name for p in top.iterdir()], ["gone"])
        self.assertEqual(stat.S_IMODE((top / "gone" / "app.db").stat().st_mode), 0o640)

    def test_nothing_to_settle(self) -> None:
        top = scratch(self)
        settle(top)
        self.assertEqual(list(top.iterdir()), [])
