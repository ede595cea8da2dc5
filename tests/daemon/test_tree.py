"""No path, and no moment, leads out of the tree; each refusal names its path."""

import contextlib
import errno
import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.conditions import Version
from matrix.daemon.paths import Parts, parse_text
from matrix.daemon.tree import Tree, explained_write
from matrix.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    InsufficientStorage,
    MatrixError,
    NotFound,
    PreconditionFailed,
)
from matrix.testing.scratch import scratch


def anything(now: Version | None) -> None:
    """A check that lets every change go ahead."""


def nothing_there(now: Version | None) -> None:
    if now is not None:
        raise PreconditionFailed


class TreeCase(SynchronousTestCase):
    def setUp(self) -> None:
        top = scratch(self)
        self.root, self.outside, incoming = top / "root", top / "outside", top / "incoming"
        for folder in (self.root, self.outside, incoming):
            folder.mkdir()
        (self.outside / "secret").write_text("secret")
        self.incoming = incoming
        self.staging = os.open(incoming, os.O_RDONLY)
        self.addCleanup(os.close, self.staging)
        self.tree = Tree(os.fsencode(self.root))

    def write(self, path: str, text: str = "text") -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def names(self, path: str = "") -> list[str]:
        entries, _ = self.tree.list(parse_text(path), b"", 1000)
        return [entry.name.decode() for entry in entries]

    def put(self, path: str, text: str = "new", check: Callable[..., None] = anything) -> bool:
        (self.incoming / "tmp").write_text(text)
        return self.tree.put(parse_text(path), self.staging, b"tmp", check)

    def move(self, source: str, target: str, overwrite: bool = False) -> bool:
        return self.tree.move(parse_text(source), parse_text(target), overwrite, anything)

    def delete(self, path: str, recursive: bool = False) -> bool:
        return self.tree.delete(parse_text(path), self.staging, b"trash", recursive, anything)

    def refused(self, kind: type[MatrixError], call: Callable[..., object], *args: object) -> str:
        return str(self.assertRaises(kind, call, *args))


class LookTests(TreeCase):
    def test_kinds(self) -> None:
        self.write("file", "12345")
        (self.root / "folder").mkdir()
        (self.root / "link").symlink_to("file")
        os.mkfifo(self.root / "pipe")
        kinds = {name: self.tree.look((name.encode(),)).kind for name in self.names()}
        self.assertEqual(
            kinds, {"file": "file", "folder": "directory", "link": "link", "pipe": "other"}
        )
        self.assertEqual(self.tree.look((b"file",)).size, 5)
        self.assertEqual(self.tree.look(()).kind, "directory")

    def test_etag_follows_each_change(self) -> None:
        self.write("file", "one")
        seen = {self.tree.look((b"file",)).version.etag}
        os.utime(self.root / "file", (0, 0))
        seen.add(self.tree.look((b"file",)).version.etag)
        self.put("file", "two")
        seen.add(self.tree.look((b"file",)).version.etag)
        self.assertEqual(len(seen), 3)

    def test_what_is_not_there(self) -> None:
        self.assertIn("no", self.refused(NotFound, self.tree.look, (b"no", b"file")))

    def test_below_a_file_there_is_nothing(self) -> None:
        self.write("file")
        text = self.refused(Conflict, self.tree.look, (b"file", b"x"))
        self.assertIn("file is not a folder", text)


class ListTests(TreeCase):
    def test_sorted_by_name_and_paged(self) -> None:
        for name in ("b", "a", "d", "c", "B"):
            self.write(name)
        self.assertEqual(self.names(), ["B", "a", "b", "c", "d"])
        first, after = self.tree.list((), b"", 2)
        self.assertEqual([entry.name for entry in first], [b"B", b"a"])
        self.assertEqual(after, b"a")
        rest, after = self.tree.list((), b"a", 3)
        self.assertEqual([entry.name for entry in rest], [b"b", b"c", b"d"])
        self.assertIsNone(after)

    def test_name_that_is_no_utf8(self) -> None:
        (Path(os.fsdecode(os.fsencode(self.root) + b"/\xff"))).write_text("x")
        self.assertEqual([entry.name for entry in self.tree.list((), b"", 9)[0]], [b"\xff"])
        self.assertEqual(self.tree.look((b"\xff",)).size, 1)


class OpenTests(TreeCase):
    def test_file(self) -> None:
        self.write("a/file", "content")
        descriptor, entry = self.tree.open((b"a", b"file"))
        self.addCleanup(os.close, descriptor)
        self.assertEqual(os.read(descriptor, 100), b"content")
        self.assertEqual(entry.size, 7)
        self.assertFalse(os.get_inheritable(descriptor))

    def test_folder(self) -> None:
        self.assertEqual(self.tree.open(())[0], -1)
        (self.root / "a").mkdir()
        self.assertEqual(self.tree.open((b"a",))[0], -1)

    def test_pipe_and_socket_are_refused_without_waiting(self) -> None:
        os.mkfifo(self.root / "pipe")
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.root / "sock"))
        for name in (b"pipe", b"sock"):
            self.refused(Forbidden, self.tree.open, (name,))


class LinkTests(TreeCase):
    """A symbolic link is a thing of its own; nothing is reached through it."""

    def setUp(self) -> None:
        super().setUp()
        (self.root / "out").symlink_to(self.outside.resolve())
        (self.root / "file-out").symlink_to((self.outside / "secret").resolve())
        (self.root / "up").symlink_to("..")
        (self.root / "in").symlink_to("real")
        self.write("real/file")

    def test_not_followed_at_any_place(self) -> None:
        through: list[Parts] = [
            (b"out", b"secret"),
            (b"up", b"outside", b"secret"),
            (b"in", b"file"),
        ]
        for parts in through:
            for call in (self.tree.look, self.tree.open, self.tree.make_folder):
                self.assertIn("symbolic link", self.refused(Forbidden, call, parts))
            text = "/".join(map(bytes.decode, parts))
            self.refused(Forbidden, self.put, text)
            self.refused(Forbidden, self.delete, text)
            self.refused(Forbidden, self.move, text, "stolen")
            self.refused(Forbidden, self.move, "real/file", text)
        for name in (b"out", b"up", b"in"):
            self.refused(Forbidden, self.tree.list, (name,), b"", 10)

    def test_not_opened_and_not_replaced(self) -> None:
        self.refused(Forbidden, self.tree.open, (b"file-out",))
        self.refused(Forbidden, self.put, "file-out")
        self.assertEqual((self.outside / "secret").read_text(), "secret")

    def test_listed_moved_and_deleted_itself(self) -> None:
        self.assertEqual(self.tree.look((b"file-out",)).kind, "link")
        self.move("file-out", "renamed")
        self.assertTrue((self.root / "renamed").is_symlink())
        self.delete("renamed")
        self.delete("out", recursive=True)
        self.assertEqual((self.outside / "secret").read_text(), "secret")
        self.assertNotIn("out", self.names())

    def test_swapped_in_at_any_moment_leads_nowhere(self) -> None:
        """A program swaps a folder for a link as fast as it can; no read gets outside."""
        (self.outside / "file").write_text("secret")
        self.write("swap/file", "inside")
        (self.root / "evil").symlink_to(self.outside.resolve())
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                os.rename(self.root / "swap", self.root / "aside")
                os.rename(self.root / "evil", self.root / "swap")
                os.rename(self.root / "swap", self.root / "evil")
                os.rename(self.root / "aside", self.root / "swap")

        swapper = threading.Thread(target=swap)
        swapper.start()
        try:
            outcomes = {self.attempt() for _ in range(3000)}
        finally:
            stop.set()
            swapper.join()
        self.assertIn("inside", outcomes)
        self.assertLessEqual(outcomes, {"inside", "NotFound", "Forbidden", "Conflict"})

    def attempt(self) -> str:
        try:
            descriptor, _ = self.tree.open((b"swap", b"file"))
        except MatrixError as error:
            return type(error).__name__
        try:
            return os.read(descriptor, 100).decode()
        finally:
            os.close(descriptor)


class MakeFolderTests(TreeCase):
    def test_makes_it(self) -> None:
        self.assertEqual(self.tree.make_folder((b"a",)).kind, "directory")
        self.tree.make_folder((b"a", b"b"))
        self.assertTrue((self.root / "a/b").is_dir())

    def test_what_exists_is_a_conflict(self) -> None:
        self.write("a")
        self.assertIn("exists already", self.refused(Conflict, self.tree.make_folder, (b"a",)))

    def test_missing_parent_is_a_conflict_that_says_so(self) -> None:
        text = self.refused(Conflict, self.tree.make_folder, (b"a", b"b"))
        self.assertIn("make the folder first", text)


class PutTests(TreeCase):
    def test_new_and_replaced(self) -> None:
        self.assertTrue(self.put("file", "one"))
        self.assertFalse(self.put("file", "two"))
        self.assertEqual((self.root / "file").read_text(), "two")

    def test_replaced_file_keeps_its_mode(self) -> None:
        self.write("script")
        (self.root / "script").chmod(0o750)
        self.put("script")
        self.assertEqual((self.root / "script").stat().st_mode & 0o777, 0o750)

    def test_reader_of_the_old_file_is_not_disturbed(self) -> None:
        self.write("file", "old")
        descriptor, _ = self.tree.open((b"file",))
        self.addCleanup(os.close, descriptor)
        self.put("file", "new")
        self.assertEqual(os.pread(descriptor, 100, 0), b"old")

    def test_folder_in_its_place_is_a_conflict(self) -> None:
        (self.root / "a").mkdir()
        self.assertIn("is a folder", self.refused(Conflict, self.put, "a"))

    def test_missing_parent_is_a_conflict(self) -> None:
        self.refused(Conflict, self.put, "a/b")
        self.refused(Conflict, self.tree.check_put, (b"a", b"b"), anything)

    def test_check_sees_what_is_there(self) -> None:
        self.put("file", check=nothing_there)
        self.refused(PreconditionFailed, self.put, "file", "two", nothing_there)
        self.refused(PreconditionFailed, self.tree.check_put, (b"file",), nothing_there)
        self.assertEqual((self.root / "file").read_text(), "new")

    def test_file_that_another_program_makes_meanwhile_is_checked_again(self) -> None:
        def made_meanwhile(now: Version | None) -> None:
            if now is None:
                self.write("file", "theirs")
            else:
                raise PreconditionFailed

        self.refused(PreconditionFailed, self.put, "file", "ours", made_meanwhile)
        self.assertEqual((self.root / "file").read_text(), "theirs")


class MoveTests(TreeCase):
    def test_file_and_folder(self) -> None:
        self.write("a/file")
        self.assertTrue(self.move("a/file", "b"))
        self.assertTrue(self.move("a", "c"))
        self.assertEqual(self.names(), ["b", "c"])

    def test_existing_target_is_a_conflict_unless_overwritten(self) -> None:
        self.write("a", "A")
        self.write("b", "B")
        self.assertIn("b exists already", self.refused(Conflict, self.move, "a", "b"))
        self.assertFalse(self.move("a", "b", overwrite=True))
        self.assertEqual((self.root / "b").read_text(), "A")

    def test_folder_replaces_only_an_empty_folder(self) -> None:
        self.write("a/file")
        self.write("full/file")
        (self.root / "empty").mkdir()
        self.refused(Conflict, self.move, "a", "empty")
        self.refused(Conflict, self.move, "a", "full", True)
        self.move("a", "empty", overwrite=True)
        self.assertEqual(self.names("empty"), ["file"])

    def test_folder_does_not_go_into_itself(self) -> None:
        self.write("a/b/c")
        for target in ("a", "a/b/d", "a/x"):
            self.assertIn("into itself", self.refused(Conflict, self.move, "a", target))

    def test_nothing_to_move(self) -> None:
        self.assertIn("at a", self.refused(NotFound, self.move, "a", "b"))

    def test_missing_target_folder(self) -> None:
        self.write("a")
        self.refused(Conflict, self.move, "a", "x/y")


class DeleteTests(TreeCase):
    def test_file_and_empty_folder(self) -> None:
        self.write("file")
        (self.root / "folder").mkdir()
        self.assertFalse(self.delete("file"))
        self.assertFalse(self.delete("folder"))
        self.assertEqual(self.names(), [])

    def test_folder_with_content_only_when_asked(self) -> None:
        self.write("a/b/file")
        self.assertIn("not empty", self.refused(Conflict, self.delete, "a"))
        self.assertTrue(self.delete("a", recursive=True))
        self.assertEqual(self.names(), [])
        self.assertTrue((self.incoming / "trash/b/file").exists())

    def test_nothing_to_delete(self) -> None:
        self.refused(NotFound, self.delete, "a")

    def test_check_comes_first(self) -> None:
        self.write("a")
        call = (self.tree.delete, (b"a",), self.staging, b"trash", False, nothing_there)
        self.refused(PreconditionFailed, *call)
        self.assertEqual(self.names(), ["a"])


class RootTests(TreeCase):
    def test_workspace_that_was_removed_is_made_anew(self) -> None:
        self.write("file")
        shutil.rmtree(self.root)
        self.assertEqual(self.names(), [])
        self.put("file")
        self.assertEqual(self.names(), ["file"])
        self.assertEqual(self.root.stat().st_mode & 0o777, 0o700)

    def test_link_in_its_place_is_not_followed(self) -> None:
        self.root.rmdir()
        self.root.symlink_to(self.outside.resolve())
        self.refused(Forbidden, self.tree.list, (), b"", 10)
        self.refused(Forbidden, self.put, "file")


class ErrorTests(TreeCase):
    def test_errors_of_writing(self) -> None:
        for name, expected in (
            ("ENOSPC", InsufficientStorage),
            ("EDQUOT", InsufficientStorage),
            ("EFBIG", InsufficientStorage),
            ("EROFS", Forbidden),
            ("EACCES", Forbidden),
        ):
            error = OSError(getattr(errno, name), name)
            self.assertIsInstance(explained_write(error, "x"), expected)

    def test_fault_of_the_disk_is_not_the_clients(self) -> None:
        fault = OSError(5, "Input/output error")
        self.assertIs(explained_write(fault, "x"), fault)

    def test_name_too_long_for_the_file_system(self) -> None:
        self.refused(BadRequest, self.tree.look, (b"x" * 300,))

    def test_no_descriptor_is_left_open(self) -> None:
        self.write("a/b/file")
        before = len(os.listdir("/proc/self/fd"))
        for parts in ((b"a", b"b"), (b"a", b"x", b"y"), (b"a", b"b", b"file", b"z")):
            with contextlib.suppress(MatrixError):
                self.tree.list(parts, b"", 5)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
