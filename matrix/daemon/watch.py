"""Sees every change below one directory, whoever makes it: inotify, folder by folder."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from twisted.logger import Logger

from matrix.daemon import _linux as linux
from matrix.daemon._linux import Notice
from matrix.daemon.changes import Change, Gathering, Kind
from matrix.daemon.paths import DEPTH_LIMIT, Parts
from matrix.daemon.tree import open_root

_log = Logger()

_MASK = (
    linux.IN_CREATE
    | linux.IN_MODIFY
    | linux.IN_CLOSE_WRITE
    | linux.IN_MOVED_FROM
    | linux.IN_MOVED_TO
    | linux.IN_DELETE
)

READ_SIZE = 64 * 1024
"""Bytes per read: some 2,000 notices of ordinary names."""


@dataclass(eq=False, slots=True)
class _Folder:
    """A watched folder. Paths are found by climbing, so a move changes one node."""

    parent: _Folder | None
    name: bytes
    watch: int = -1
    folders: dict[bytes, _Folder] = field(default_factory=dict)

    def path(self) -> Parts:
        names = []
        folder = self
        while folder.parent is not None:
            names.append(folder.name)
            folder = folder.parent
        return tuple(reversed(names))


class Watch:
    """
    The state of watching one tree. Every method blocks and may be called from any thread.

    Notices come in the order of the changes; a folder that appears is watched first and
    then looked into, so that nothing in it is missed, though some of it may be told twice.
    Symbolic links are not followed.
    """

    def __init__(self, root: bytes, now: Callable[[], float] = time.time) -> None:
        """
        @param now: unix seconds.
        @param root: made if it is missing, now and whenever it goes.
        @raise OSError: C{root} is no readable directory, or there is no inotify to be had.
        """
        self._root_path = root
        os.close(open_root(root))
        self._now = now
        self._lock = threading.RLock()
        self._gathering = Gathering()
        self._placing: dict[Parts, int] = {}
        self.descriptor = linux.inotify_open()
        self.wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when there is news that L{descriptor} does not show."""
        self.partial = False
        """Whether some folders are not watched, because the system allows no more."""
        self._forget_all()

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            os.close(self.descriptor)
            os.close(self.wake_descriptor)

    def begin(self) -> None:
        """Watch all there is. What is in it already is not told."""
        with self._lock:
            self._look_into(self._root, tell=False)

    def take(self) -> list[Change]:
        """The changes since the last call, merged."""
        with self._lock:
            self._read_all()
            self._settle_moves()
            return self._gathering.take()

    def has_news(self) -> bool:
        """Read what the kernel has; whether L{take} would return something."""
        with self._lock:
            self._read_all()
            return bool(self._gathering or self._moving)

    @contextmanager
    def placing(self, parts: Parts) -> Iterator[Callable[[bool], None]]:
        """See L{matrix.daemon.workspace.Told}: the kernel's own notice of this rename, which
        cannot tell new from replaced, gives way to what the caller knows."""
        with self._lock:
            self._placing[parts] = self._placing.get(parts, 0) + 1
        told: list[Change] = []

        def tell(new: bool) -> None:
            kind = Kind.CREATED if new else Kind.MODIFIED
            told.append(Change(kind, parts, self._now()))

        try:
            yield tell
        finally:
            with self._lock:
                self._read_all()
                self._placing[parts] -= 1
                if not self._placing[parts]:
                    del self._placing[parts]
                for change in told:
                    self._gathering.add(change)
            os.eventfd_write(self.wake_descriptor, 1)

    def _forget_all(self) -> None:
        self._root = _Folder(None, b"")
        self._by_watch: dict[int, _Folder] = {}
        self._moving: dict[int, tuple[_Folder, bytes, bool]] = {}

    # What the kernel says

    def _read_all(self) -> None:
        while True:
            try:
                data = os.read(self.descriptor, READ_SIZE)
            except BlockingIOError:
                return
            for notice in linux.parse_notices(data):
                if self._is_lost(notice):
                    self.start_over()
                    break  # The rest is about watches that are no more.
                self._take_in(notice)

    def _is_lost(self, notice: Notice) -> bool:
        """Whether the kernel dropped notices, or the root itself is gone."""
        if notice.mask & linux.IN_Q_OVERFLOW:
            return True
        ended = notice.mask & (linux.IN_IGNORED | linux.IN_MOVE_SELF)
        return bool(ended) and notice.watch == self._root.watch

    def _take_in(self, notice: Notice) -> None:
        folder = self._by_watch.get(notice.watch)
        if folder is None:
            return
        mask, is_folder = notice.mask, bool(notice.mask & linux.IN_ISDIR)
        if mask & linux.IN_IGNORED:
            self._forget(folder)
        elif self._moving and self._has_left(folder):
            return
        elif mask & linux.IN_MOVED_FROM:
            self._moving[notice.cookie] = (folder, notice.name, is_folder)
        elif mask & linux.IN_MOVED_TO and notice.cookie in self._moving:
            self._moved(*self._moving.pop(notice.cookie), folder, notice.name)
        elif mask & (linux.IN_CREATE | linux.IN_MOVED_TO):
            self._appeared(folder, notice.name, is_folder)
        elif mask & linux.IN_DELETE:
            self._tell(Kind.DELETED, (*folder.path(), notice.name))
        else:
            self._tell(Kind.MODIFIED, (*folder.path(), notice.name))

    def _appeared(self, folder: _Folder, name: bytes, is_folder: bool) -> None:
        path = (*folder.path(), name)
        if path in self._placing:
            return
        self._tell(Kind.CREATED, path)
        if is_folder:
            self._look_into(self._adopt(folder, name), tell=True)

    def _moved(
        self, before: _Folder, name: bytes, is_folder: bool, folder: _Folder, new_name: bytes
    ) -> None:
        source = (*before.path(), name)
        node = before.folders.pop(name, None)
        if node is not None:
            node.parent, node.name = folder, new_name
            folder.folders[new_name] = node
        target = (*folder.path(), new_name)
        self._gathering.add(Change(Kind.MOVED, target, self._now(), source))
        if is_folder and node is None:
            self._look_into(self._adopt(folder, new_name), tell=False)

    def _has_left(self, folder: _Folder) -> bool:
        """Whether it is in a folder that was moved out of the workspace. An arrival follows
        its departure at once, so what comes in between happened elsewhere."""
        departed = [before.folders.get(name) for before, name, _ in self._moving.values()]
        at: _Folder | None = folder
        while at is not None:
            if at in departed:
                return True
            at = at.parent
        return False

    def _settle_moves(self) -> None:
        """What was moved and did not arrive has left the workspace."""
        moving, self._moving = self._moving, {}
        for folder, name, _ in moving.values():
            self._tell(Kind.DELETED, (*folder.path(), name))
            node = folder.folders.pop(name, None)
            if node is not None:
                self._leave(node)

    def _tell(self, kind: Kind, path: Parts) -> None:
        self._gathering.add(Change(kind, path, self._now()))

    def start_over(self) -> None:
        """Something was missed: watch everything anew, and say so."""
        with self._lock:
            self._renew()
            self.begin()
            self._tell(Kind.RESET, ())

    def _renew(self) -> None:
        replacement = linux.inotify_open()
        # The number must stay the same: the thread that polls it knows no other. It is not free
        # for a moment, or another thread would be given it, for a connection of a client's say.
        os.dup2(replacement, self.descriptor, inheritable=False)
        os.close(replacement)
        self._forget_all()

    # Which folders are watched

    def _adopt(self, parent: _Folder, name: bytes) -> _Folder:
        folder = parent.folders[name] = _Folder(parent, name)
        return folder

    def _look_into(self, top: _Folder, tell: bool) -> None:
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            path = folder.path()
            for name, is_folder in self._watched(folder, path):
                if tell:
                    self._tell(Kind.CREATED, (*path, name))
                if is_folder and len(path) < DEPTH_LIMIT:
                    waiting.append(self._adopt(folder, name))

    def _watched(self, folder: _Folder, path: Parts) -> list[tuple[bytes, bool]]:
        """Watch a folder, then list it."""
        try:
            descriptor = _open_folder(self._root_path, path)
        except OSError:
            # Gone again, or never ours to see: then there is nothing to tell of it either.
            return []
        try:
            mask = _MASK if path else _MASK | linux.IN_MOVE_SELF
            folder.watch = linux.inotify_watch(self.descriptor, descriptor, mask)
            self._by_watch[folder.watch] = folder
            with os.scandir(descriptor) as entries:
                return [
                    (os.fsencode(each.name), each.is_dir(follow_symlinks=False)) for each in entries
                ]
        except OSError as error:
            self._cannot_watch(error)
            return []
        finally:
            os.close(descriptor)

    def _cannot_watch(self, error: OSError) -> None:
        if error.errno in (errno.EACCES, errno.ENOENT):
            return  # Not ours to see, or gone again.
        if error.errno != errno.ENOSPC:
            raise error
        if not self.partial:
            _log.error(
                "more folders than may be watched: raise fs.inotify.max_user_watches; "
                "changes in some folders go untold"
            )
        self.partial = True

    def _leave(self, top: _Folder) -> None:
        """Watch a folder and all below it no longer."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            waiting.extend(folder.folders.values())
            if self._by_watch.get(folder.watch) is folder:
                del self._by_watch[folder.watch]
                linux.inotify_unwatch(self.descriptor, folder.watch)

    def _forget(self, folder: _Folder) -> None:
        """The kernel ended a watch: the folder is gone."""
        self._by_watch.pop(folder.watch, None)
        parent = folder.parent
        if parent is not None and parent.folders.get(folder.name) is folder:
            del parent.folders[folder.name]


def _open_folder(root: bytes, path: Parts) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = open_root(root)
    for name in path:
        try:
            below = os.open(name, flags, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder
