"""Every change is seen, whoever makes it; a real kernel says so, and nothing waits."""

import ctypes
import errno
import os
import shutil
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon import _linux as linux
from matrix.daemon.changes import Change
from matrix.daemon.paths import text_of
from matrix.daemon.watch import Watch
from matrix.testing.scratch import scratch


class WatchCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = scratch(self)
        self.root = self.top / "root"
        self.root.mkdir()
        self.prepare()
        self.watch = Watch(os.fsencode(self.root), now=lambda: 7.0)
        self.addCleanup(self.watch.close)
        self.watch.begin()

    def prepare(self) -> None:
        """What is there before anybody looks."""

    def told(self) -> list[tuple[str, ...]]:
        return [shown(change) for change in self.watch.take()]


def shown(change: Change) -> tuple[str, ...]:
    source = () if change.source is None else (text_of(change.source),)
    return (str(change.kind), *source, text_of(change.path))


class FileTests(WatchCase):
    def prepare(self) -> None:
        (self.root / "a/b").mkdir(parents=True)
        (self.root / "a/b/old").write_text("old")

    def test_what_was_there_is_not_told(self) -> None:
        self.assertFalse(self.watch.has_news())
        self.assertEqual(self.told(), [])

    def test_life_of_a_file(self) -> None:
        file = self.root / "a/b/file"
        file.write_text("x")
        self.assertTrue(self.watch.has_news())
        self.assertEqual(self.told(), [("created", "a/b/file")])
        file.write_text("y")
        self.assertEqual(self.told(), [("modified", "a/b/file")])
        file.rename(self.root / "moved")
        self.assertEqual(self.told(), [("moved", "a/b/file", "moved")])
        (self.root / "moved").unlink()
        self.assertEqual(self.told(), [("deleted", "moved")])

    def test_time_of_a_change(self) -> None:
        (self.root / "file").touch()
        self.assertEqual([change.at for change in self.watch.take()], [7.0])

    def test_file_kept_open_is_told_while_it_is_written(self) -> None:
        with (self.root / "log").open("w") as log:
            self.assertEqual(self.told(), [("created", "log")])
            print("line", file=log, flush=True)
            self.assertEqual(self.told(), [("modified", "log")])

    def test_reading_is_no_change(self) -> None:
        (self.root / "a/b/old").read_text()
        list(self.root.rglob("*"))
        self.assertEqual(self.told(), [])

    def test_leaving_and_entering_the_workspace(self) -> None:
        (self.root / "a/b/old").rename(self.top / "outside")
        self.assertEqual(self.told(), [("deleted", "a/b/old")])
        (self.top / "outside").rename(self.root / "back")
        self.assertEqual(self.told(), [("created", "back")])

    def test_name_that_is_no_utf8(self) -> None:
        (self.root / os.fsdecode(b"\xff")).touch()
        self.assertEqual([change.path for change in self.watch.take()], [(b"\xff",)])


class FolderTests(WatchCase):
    def test_new_folders_are_watched(self) -> None:
        (self.root / "a/b/c").mkdir(parents=True)
        self.assertEqual(self.told()[0], ("created", "a"))
        (self.root / "a/b/c/file").touch()
        self.assertEqual(self.told(), [("created", "a/b/c/file")])

    def test_what_came_into_a_folder_before_it_was_watched_is_told(self) -> None:
        (self.root / "a/b").mkdir(parents=True)
        (self.root / "a/b/file").touch()
        self.assertEqual(
            self.told(), [("created", "a"), ("created", "a/b"), ("created", "a/b/file")]
        )

    def test_moved_folder_keeps_telling_under_its_new_name(self) -> None:
        (self.root / "a/b").mkdir(parents=True)
        self.told()
        (self.root / "a").rename(self.root / "c")
        self.assertEqual(self.told(), [("moved", "a", "c")])
        (self.root / "c/b/file").touch()
        self.assertEqual(self.told(), [("created", "c/b/file")])
        (self.root / "a").mkdir()
        (self.root / "a/x").touch()
        self.assertEqual(self.told(), [("created", "a"), ("created", "a/x")])

    def test_folder_moved_in_from_outside_is_told_with_its_content(self) -> None:
        (self.top / "tree/sub").mkdir(parents=True)
        (self.top / "tree/sub/file").touch()
        (self.top / "tree").rename(self.root / "tree")
        told = [("created", "tree"), ("created", "tree/sub"), ("created", "tree/sub/file")]
        self.assertEqual(self.told(), told)
        (self.root / "tree/sub/more").touch()
        self.assertEqual(self.told(), [("created", "tree/sub/more")])

    def test_folder_moved_out_is_silent_from_then_on(self) -> None:
        (self.root / "a/b").mkdir(parents=True)
        self.told()
        (self.root / "a").rename(self.top / "away")
        self.assertEqual(self.told(), [("deleted", "a")])
        (self.top / "away/b/file").touch()
        (self.top / "away/file").touch()
        self.assertEqual(self.told(), [])

    def test_what_happens_in_a_folder_after_it_left_is_not_told(self) -> None:
        (self.root / "a/b").mkdir(parents=True)
        (self.root / "a/b/file").touch()
        self.told()
        (self.root / "a").rename(self.top / "away")
        shutil.rmtree(self.top / "away")
        self.assertEqual(self.told(), [("deleted", "a")])

    def test_deleted_tree(self) -> None:
        (self.root / "a/b").mkdir(parents=True)
        (self.root / "a/b/file").touch()
        self.told()
        shutil.rmtree(self.root / "a")
        told = [("deleted", "a/b/file"), ("deleted", "a/b"), ("deleted", "a")]
        self.assertEqual(self.told(), told)
        (self.root / "a").mkdir()
        (self.root / "a/new").touch()
        self.assertEqual(self.told(), [("created", "a"), ("created", "a/new")])

    def test_links_are_told_but_not_followed(self) -> None:
        (self.top / "outside").mkdir()
        (self.root / "link").symlink_to(self.top / "outside")
        self.assertEqual(self.told(), [("created", "link")])
        (self.top / "outside/file").touch()
        self.assertEqual(self.told(), [])

    def test_too_many_changes_are_told_as_one(self) -> None:
        for number in range(600):
            (self.root / str(number)).touch()
        self.assertEqual(self.told(), [("reset", "")])
        (self.root / "x").touch()
        self.assertEqual(self.told(), [("created", "x")])

    def test_unwatched_tree_gives_back_what_it_used(self) -> None:
        for _ in range(3):
            (self.root / "a/b/c").mkdir(parents=True)
            self.told()
            shutil.rmtree(self.root / "a")
            self.told()
        with open(f"/proc/self/fdinfo/{self.watch.descriptor}") as info:
            self.assertEqual(info.read().count("inotify wd"), 1)


class PlacingTests(WatchCase):
    """What the API itself puts in place is told by what the API knows of it."""

    def place(self, name: str, new: bool) -> None:
        (self.top / "tmp").write_text("x")
        with self.watch.placing((name.encode(),)) as tell:
            (self.top / "tmp").rename(self.root / name)
            tell(new)

    def test_told_once_and_right(self) -> None:
        self.place("file", new=True)
        self.assertEqual(self.told(), [("created", "file")])
        self.place("file", new=False)
        self.assertEqual(self.told(), [("modified", "file")])
        self.assertEqual(self.told(), [])

    def test_even_when_the_kernel_is_read_in_between(self) -> None:
        (self.top / "tmp").write_text("x")
        with self.watch.placing((b"file",)) as tell:
            (self.top / "tmp").rename(self.root / "file")
            self.assertEqual(self.told(), [])
            tell(False)
        self.assertEqual(self.told(), [("modified", "file")])

    def test_failed_placing_tells_nothing(self) -> None:
        with self.assertRaises(OSError), self.watch.placing((b"file",)):
            raise OSError("disk full")
        self.assertEqual(self.told(), [])
        (self.root / "file").touch()
        self.assertEqual(self.told(), [("created", "file")])

    def test_wakes_whoever_waits(self) -> None:
        self.place("file", new=True)
        self.assertEqual(os.eventfd_read(self.watch.wake_descriptor), 1)

    def test_other_files_are_told_meanwhile(self) -> None:
        with self.watch.placing((b"file",)):
            (self.root / "other").touch()
        self.assertEqual(self.told(), [("created", "other")])


class LimitTests(WatchCase):
    def test_nobody_is_given_our_number_while_it_starts_over(self) -> None:
        opened = []
        replace = linux.inotify_open

        def open_anew() -> int:
            with open(os.devnull) as other:
                self.assertNotEqual(other.fileno(), self.watch.descriptor)
            opened.append(self.watch.descriptor)
            return replace()

        self.patch(linux, "inotify_open", open_anew)
        self.watch.start_over()
        self.assertEqual(opened, [self.watch.descriptor])

    def test_overflow_starts_over(self) -> None:
        overflow = linux.Notice(-1, linux.IN_Q_OVERFLOW, 0, b"")
        (self.root / "unseen").mkdir()
        with patch.object(linux, "parse_notices", return_value=iter([overflow])):
            self.assertEqual(self.told(), [("reset", "")])
        (self.root / "unseen/file").touch()
        self.assertEqual(self.told(), [("created", "unseen/file")])

    def test_workspace_that_was_removed_is_watched_anew(self) -> None:
        (self.root / "a").mkdir()
        self.told()
        shutil.rmtree(self.root)
        self.assertEqual(self.told(), [("reset", "")])
        (self.root / "file").touch()
        self.assertEqual(self.told(), [("created", "file")])

    def test_workspace_that_was_moved_away_is_watched_no_more(self) -> None:
        self.root.rename(self.top / "away")
        self.assertEqual(self.told(), [("reset", "")])
        (self.top / "away/file").touch()
        self.assertEqual(self.told(), [])
        (self.root / "file").touch()
        self.assertEqual(self.told(), [("created", "file")])

    def test_systems_limit_is_reported_and_survived(self) -> None:
        self.assertFalse(self.watch.partial)
        full = OSError(28, "No space left on device")
        with patch.object(linux, "inotify_watch", side_effect=full):
            (self.root / "a").mkdir()
            (self.root / "b").mkdir()
            self.assertEqual(self.told(), [("created", "a"), ("created", "b")])
        self.assertTrue(self.watch.partial)
        (self.root / "file").touch()
        self.assertEqual(self.told(), [("created", "file")])

    def test_folder_that_is_gone_before_it_is_watched(self) -> None:
        (self.root / "brief").mkdir()
        (self.root / "brief").rmdir()
        self.assertEqual(self.told(), [("deleted", "brief")])

    def test_deeper_than_the_api_goes_is_not_watched(self) -> None:
        deep = self.root
        for _ in range(130):
            deep = deep / "d"
        deep.mkdir(parents=True)
        self.told()
        (deep / "file").touch()
        self.assertEqual(self.told(), [])
        (self.root / "d/file").touch()
        self.assertEqual(self.told(), [("created", "d/file")])


class WithoutRenameat2:
    """The C library, on a file system that knows no flags."""

    @staticmethod
    def renameat2(*args: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1


class ParseTests(SynchronousTestCase):
    def test_notices_of_several_sizes(self) -> None:
        data = (
            b"\x01\0\0\0"
            b"\0\x01\0\0"
            b"\0\0\0\0"
            b"\x10\0\0\0"
            b"name\0\0\0\0\0\0\0\0\0\0\0\0"
            b"\x02\0\0\0"
            b"\0\x80\0\0"
            b"\x05\0\0\0"
            b"\0\0\0\0"
        )
        self.assertEqual(
            list(linux.parse_notices(data)),
            [(1, linux.IN_CREATE, 0, b"name"), (2, linux.IN_IGNORED, 5, b"")],
        )

    def test_exclusive_rename_without_the_flag(self) -> None:
        top = scratch(self)
        (top / "a").write_text("A")
        (top / "b").write_text("B")
        folder = os.open(top, os.O_RDONLY)
        self.addCleanup(os.close, folder)
        ends = {"src_dir_fd": folder, "dst_dir_fd": folder}
        with patch.object(linux, "_libc", WithoutRenameat2):
            self.assertRaises(FileExistsError, linux.rename_new, b"a", b"b", **ends)
            linux.rename_new(b"a", b"c", **ends)
        self.assertEqual((top / "c").read_text(), "A")
        self.assertEqual((top / "b").read_text(), "B")
