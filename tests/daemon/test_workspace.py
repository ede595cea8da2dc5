"""The workspace survives crashes, clients who leave, and surroundings that will not do."""

import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.conditions import Version
from matrix.daemon.paths import Parts
from matrix.daemon.tree import Entry
from matrix.daemon.workspace import OpenFile, Workspace
from matrix.errors import ConfigurationError, NotFound
from matrix.testing.scratch import scratch


def anything(now: Version | None) -> None:
    """A check that lets every change go ahead."""


class Threads:
    """A pool whose threads run when the test says so."""

    def __init__(self) -> None:
        self.at_once = True
        self.waiting: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        if self.at_once:
            return maybeDeferred(function, *args)
        result: Deferred[Any] = Deferred()
        self.waiting.append((result, function, args))
        return result

    def run(self) -> None:
        while self.waiting:
            result, function, args = self.waiting.pop(0)
            maybeDeferred(function, *args).chainDeferred(result)


class Told:
    """Remembers what was told of placed files."""

    def __init__(self) -> None:
        self.news: list[tuple[Parts, bool]] = []

    @contextmanager
    def placing(self, parts: Parts) -> Iterator[Callable[[bool], None]]:
        yield lambda new: self.news.append((parts, new))


class WorkspaceCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = scratch(self)
        self.threads, self.told = Threads(), Told()
        self.workspace = Workspace(os.fsencode(self.data), self.threads, self.told)
        self.addCleanup(self.workspace.close)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        return Deferred.fromCoroutine(coroutine)

    def done(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(self.start(coroutine))

    def incoming(self) -> list[str]:
        return os.listdir(self.data / ".incoming")

    def descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))


class WorkspaceTests(WorkspaceCase):
    def write(self, name: bytes, content: bytes) -> tuple[Entry, bool]:
        staged = self.done(self.workspace.stage((name,), None, anything))
        staged.write([content])
        result: tuple[Entry, bool] = self.done(self.workspace.commit(staged, (name,), anything))
        self.workspace.release(staged.close)
        return result

    def test_written_file_is_whole_told_and_read_back(self) -> None:
        entry, new = self.write(b"file", b"content")
        self.assertTrue(new)
        self.assertEqual(entry, self.done(self.workspace.look((b"file",))))
        self.assertFalse(self.write(b"file", b"other")[1])
        self.assertEqual(self.told.news, [((b"file",), True), ((b"file",), False)])
        file = self.done(self.workspace.open((b"file",)))
        self.addCleanup(file.close)
        self.assertEqual(file.read(2, 100), b"her")
        self.assertEqual(self.incoming(), [])

    def test_closed_file_reads_as_empty(self) -> None:
        self.write(b"file", b"content")
        file = self.done(self.workspace.open((b"file",)))
        file.close()
        file.close()
        self.assertEqual(file.read(0, 100), b"")

    def test_deleted_folder_is_emptied(self) -> None:
        self.done(self.workspace.make_folder((b"a",)))
        (self.data / "workspace/a/file").write_text("x")
        self.done(self.workspace.delete((b"a",), True, anything))
        self.assertEqual(self.incoming(), [])
        self.failureResultOf(self.start(self.workspace.look((b"a",))), NotFound)

    def test_moved_entry_is_the_one_at_its_new_place(self) -> None:
        self.write(b"a", b"x")
        entry, new = self.done(self.workspace.move((b"a",), (b"b",), False, anything))
        self.assertEqual((entry.name, new), (b"b", True))


class CancelledTests(WorkspaceCase):
    """A client may leave while a thread works for it; the thread's result must not leak."""

    def cancelled(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.threads.at_once = False
        waiting = self.start(coroutine)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.threads.run()

    def test_file_opened_too_late_is_closed(self) -> None:
        (self.data / "workspace/file").write_text("x")
        before = self.descriptors()
        self.cancelled(self.workspace.open((b"file",)))
        self.assertEqual(self.descriptors(), before)

    def test_folder_looked_at_too_late_is_nothing_to_close(self) -> None:
        self.cancelled(self.workspace.open(()))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_upload_begun_too_late_is_removed(self) -> None:
        before = self.descriptors()
        staging = self.workspace.stage((b"file",), None, anything)
        self.threads.at_once = False
        waiting = self.start(staging)
        self.threads.waiting.append(self.threads.waiting.pop(0))
        result, function, args = self.threads.waiting.pop(0)
        result.callback(function(*args))  # The check is over, the file is being made.
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.threads.run()
        self.assertEqual(self.incoming(), [])
        self.assertEqual(self.descriptors(), before)

    def test_commit_under_way_is_finished(self) -> None:
        staged = self.done(self.workspace.stage((b"file",), None, anything))
        staged.write([b"whole"])
        self.cancelled(self.workspace.commit(staged, (b"file",), anything))
        self.workspace.release(staged.close)
        self.threads.run()
        self.assertEqual((self.data / "workspace/file").read_bytes(), b"whole")

    def test_commit_after_the_file_was_let_go_places_nothing(self) -> None:
        staged = self.done(self.workspace.stage((b"file",), None, anything))
        staged.close()
        self.cancelled(self.workspace.commit(staged, (b"file",), anything))
        self.assertFalse((self.data / "workspace/file").exists())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_fault_of_the_disk_that_nobody_waits_for_is_logged(self) -> None:
        with patch("os.lstat", side_effect=OSError(5, "Input/output error")):
            self.cancelled(self.workspace.look((b"file",)))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


class StartTests(SynchronousTestCase):
    def start(self, data: bytes) -> Workspace:
        workspace = Workspace(data, Threads(), Told())
        self.addCleanup(workspace.close)
        return workspace

    def test_sweeps_what_a_crash_left(self) -> None:
        data = scratch(self)
        (data / ".incoming").mkdir()
        (data / ".incoming/half").write_text("half")
        self.start(os.fsencode(data))
        self.assertEqual(os.listdir(data / ".incoming"), [])

    def test_makes_its_folders_private(self) -> None:
        data = scratch(self) / "data"
        self.start(os.fsencode(data))
        for name in ("workspace", ".incoming"):
            self.assertEqual((data / name).stat().st_mode & 0o777, 0o700)

    def test_unusable_directory_is_named(self) -> None:
        data = scratch(self) / "file"
        data.write_text("no directory")
        error = self.assertRaises(ConfigurationError, self.start, os.fsencode(data))
        self.assertIn(str(data), str(error))

    def test_workspace_on_another_file_system_is_refused(self) -> None:
        data = scratch(self)
        real = os.stat

        def elsewhere(path: Any, **options: Any) -> Any:
            found = real(path, **options)
            if not os.fsdecode(path).endswith("workspace"):
                return found
            return os.stat_result((found.st_mode, found.st_ino, found.st_dev + 1, *found[3:]))

        with patch("os.stat", elsewhere):
            error = self.assertRaises(ConfigurationError, self.start, os.fsencode(data))
        self.assertIn("another file system", str(error))


class OpenFileTests(SynchronousTestCase):
    def test_is_closed_once(self) -> None:
        read_end, write_end = os.pipe()
        self.addCleanup(os.close, write_end)
        entry = Entry.of(b"x", os.fstat(read_end))
        file = OpenFile(read_end, entry)
        file.close()
        file.close()
        self.assertRaises(OSError, os.fstat, read_end)
