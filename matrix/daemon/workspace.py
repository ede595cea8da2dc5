"""A user's files: what the API can do with them, the blocking parts in threads of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.daemon.paths import Parts
from matrix.daemon.staging import StagedFile, Staging
from matrix.daemon.tree import CheckVersion, Entry, Tree
from matrix.errors import ConfigurationError, MatrixError

_log = Logger()

ResultT = TypeVar("ResultT")

InThread = Callable[..., Deferred[Any]]
"""C{in_thread(function, *args)}: the result of C{function(*args)}, called in a thread of the
workspace's pool."""


class Told(Protocol):
    """Who must know of a change that the file system's own notices describe too vaguely: a
    file renamed into its place looks the same whether it is new or replaces another."""

    def placing(self, parts: Parts) -> AbstractContextManager[Callable[[bool], None]]:
        """Entered around a file's placing; the value is called with whether it is new."""


class OpenFile:
    """A file open for reading. As with L{StagedFile}, no read meets a closed descriptor."""

    def __init__(self, descriptor: int, entry: Entry) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self.entry = entry

    def read(self, offset: int, size: int) -> bytes:
        """Up to C{size} bytes from C{offset}; empty past the end of the file."""
        with self._lock:
            return os.pread(self._descriptor, size, offset) if self._descriptor >= 0 else b""

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


class Workspace:
    """
    Everything below one directory. Coroutines; each raises what L{Tree} says.

    C{data} is the machine's volume: the files are in C{data/workspace}, uploads on their
    way in C{data/.incoming}, which no path of the API reaches.
    """

    def __init__(self, data: bytes, in_thread: InThread, told: Told) -> None:
        """
        Make the directories if need be and sweep up after a crash.

        @raise ConfigurationError: that is not possible; says why.
        """
        root, incoming = os.path.join(data, b"workspace"), os.path.join(data, b".incoming")
        try:
            self._staging = Staging(incoming)
            self._tree = Tree(root)
        except OSError as error:
            raise ConfigurationError(
                f"--data {os.fsdecode(data)}: {error.strerror}: {os.fsdecode(error.filename)}"
            ) from None
        if os.stat(root).st_dev != os.fstat(self._staging.folder).st_dev:
            raise ConfigurationError(
                f"{os.fsdecode(root)} is on another file system than {os.fsdecode(incoming)}: "
                "mount the volume at the data directory instead"
            )
        self._in_thread = in_thread
        self._told = told
        swept = self._staging.sweep()
        if swept:
            _log.info("removed {swept} unfinished uploads of an earlier run", swept=swept)

    def in_thread(self, function: Callable[..., ResultT], *args: object) -> Deferred[ResultT]:
        """Call C{function}, of a file that was opened or staged here, in a thread."""
        return self._in_thread(function, *args)

    def close(self) -> None:
        """Let go of the directories. Files that are still open stay so."""
        self._staging.close()

    async def look(self, parts: Parts) -> Entry:
        """What is there."""
        return await self._run(self._tree.look, parts)

    async def open(self, parts: Parts) -> OpenFile | Entry:
        """The file, for the caller to L{release}; of a folder, its entry."""

        def discard(late: OpenFile | Entry) -> None:
            if isinstance(late, OpenFile):
                self.release(late.close)

        return await self._shielded(self._in_thread(self._open, parts), discard)

    async def list(
        self, parts: Parts, after: bytes, limit: int
    ) -> tuple[list[Entry], bytes | None]:
        """A page of a folder, and what the next one comes after."""
        return await self._run(self._tree.list, parts, after, limit)

    async def make_folder(self, parts: Parts) -> Entry:
        """Make a folder."""
        return await self._run(self._tree.make_folder, parts)

    async def move(
        self, source: Parts, target: Parts, overwrite: bool, check: CheckVersion
    ) -> tuple[Entry, bool]:
        """Move; the entry at its new place, and whether it replaced nothing there."""
        new = await self._run(self._tree.move, source, target, overwrite, check)
        return await self.look(target), new

    async def delete(self, parts: Parts, recursive: bool, check: CheckVersion) -> None:
        """Delete. A folder's content is freed in the background."""
        staging, name = self._staging, self._staging.fresh_name()
        moved = await self._run(self._tree.delete, parts, staging.folder, name, recursive, check)
        if moved:
            self.release(staging.remove, name)

    async def stage(self, parts: Parts, length: int | None, check: CheckVersion) -> StagedFile:
        """
        Begin to write a file, for the caller to L{commit} and then to L{release}. What can
        be refused is refused now, before the bytes come.
        """
        await self._run(self._tree.check_put, parts, check)
        return await self.scratch(length)

    async def scratch(self, length: int | None) -> StagedFile:
        """A file for a while, in no place of the workspace; for the caller to L{release}."""
        creating: Deferred[StagedFile] = self._in_thread(self._staging.create, length)
        return await self._shielded(creating, lambda late: self.release(late.close))

    async def commit(
        self, staged: StagedFile, parts: Parts, check: CheckVersion
    ) -> tuple[Entry, bool]:
        """Put the file in its place, safe on the disk; what it is now, and whether it is new."""
        return await self._run(self._commit, staged, parts, check)

    def release(self, function: Callable[..., None], *args: object) -> None:
        """Call C{function} in a thread, with nobody waiting for it."""
        self._in_thread(function, *args).addErrback(
            lambda failure: _log.failure("clearing away failed", failure=failure)
        )

    def _open(self, parts: Parts) -> OpenFile | Entry:
        descriptor, entry = self._tree.open(parts)
        return entry if descriptor < 0 else OpenFile(descriptor, entry)

    def _commit(self, staged: StagedFile, parts: Parts, check: CheckVersion) -> tuple[Entry, bool]:
        with staged.lock:
            staged.finish()
            with self._told.placing(parts) as tell:
                new = self._tree.put(parts, self._staging.folder, staged.name, check)
                staged.placed()
                tell(new)
            return Entry.of(parts[-1], staged.stat()), new

    async def _run(self, function: Callable[..., ResultT], *args: object) -> ResultT:
        result: ResultT = await self._shielded(self._in_thread(function, *args), lambda late: None)
        return result

    def _shielded(
        self, working: Deferred[ResultT], discard: Callable[[ResultT], None]
    ) -> Deferred[ResultT]:
        """
        The result of a thread, for a coroutine that may be cancelled while it waits. The
        thread cannot be: what it brings too late goes to C{discard}.
        """
        waiting: Deferred[ResultT] = Deferred()

        def arrived(result: ResultT) -> None:
            if waiting.called:
                discard(result)
            else:
                waiting.callback(result)

        def failed(failure: Failure) -> None:
            if not waiting.called:
                waiting.errback(failure)
            elif not isinstance(failure.value, MatrixError):
                _log.failure("work for a client who left failed", failure=failure)

        working.addCallbacks(arrived, failed)
        return waiting
