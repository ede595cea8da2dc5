"""The workspace's folders and files: blocking calls that no path can lead out of."""

from __future__ import annotations

import errno
import heapq
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NoReturn

from matrix.daemon._linux import rename_new
from matrix.daemon.conditions import Version
from matrix.daemon.paths import Parts, text_of
from matrix.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    InsufficientStorage,
    MatrixError,
    NotFound,
)

CheckVersion = Callable[[Version | None], None]
"""Raises a L{MatrixError} when what is there (C{None}: nothing) is not what was expected."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking: the open of a FIFO nobody writes to would hold a thread for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is at one place."""

    name: bytes
    kind: str
    """C{file}, C{directory}, C{link} or C{other} (a socket, a FIFO, a device)."""
    size: int
    modified: float
    """Unix seconds."""
    version: Version
    mode: int

    @classmethod
    def of(cls, name: bytes, found: os.stat_result) -> Entry:
        # The change time follows each change of content and, unlike the modification time,
        # cannot be set back; the inode tells a replaced file from the one before.
        etag = b'"%x-%x-%x"' % (found.st_ino, found.st_ctime_ns, found.st_size)
        return cls(
            name=name,
            kind=_KINDS.get(stat.S_IFMT(found.st_mode), "other"),
            size=found.st_size,
            modified=found.st_mtime,
            version=Version(etag, int(found.st_mtime)),
            mode=stat.S_IMODE(found.st_mode),
        )


class Tree:
    """
    What can be done below one directory.

    Each path is walked name by name with C{openat} and C{O_NOFOLLOW}: a symbolic link is
    never followed, at whatever moment it takes a folder's place. Changes are made one at a
    time, so that a check and the change it allows are one step among our own callers; other
    programs keep the freedom that every file system gives them.

    Every method blocks, and raises L{NotFound}, L{Forbidden} (a link in the way, or no
    permission), L{Conflict} or L{InsufficientStorage} with a text that names the path.
    """

    def __init__(self, root: bytes) -> None:
        """
        @param root: made anew whenever it is missing: a user who removes it, as C{rm -rf}
            in their machine may, finds an empty workspace and not a broken daemon.
        @raise OSError: C{root} is not a readable directory.
        """
        self._root = root
        self._changing = threading.Lock()
        os.close(open_root(root))

    @contextmanager
    def folder(self, parts: Parts) -> Iterator[int]:
        """The descriptor of a folder, open for the C{with} block."""
        folder = self._open_root()
        try:
            for depth, name in enumerate(parts, 1):
                with _explained(parts[:depth], folder):
                    below = os.open(name, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def look(self, parts: Parts) -> Entry:
        """What is there; a link itself, not what it points to."""
        if not parts:
            with self.folder(()) as root:
                return Entry.of(b"", os.fstat(root))
        with self.folder(parts[:-1]) as parent, _explained(parts, parent):
            return Entry.of(parts[-1], os.lstat(parts[-1], dir_fd=parent))

    def open(self, parts: Parts) -> tuple[int, Entry]:
        """
        The descriptor of a file, and what it is; of a folder the entry only, with C{-1}.
        """
        if not parts:
            return -1, self.look(parts)
        with self.folder(parts[:-1]) as parent, _explained(parts, parent):
            descriptor = os.open(parts[-1], _FILE, dir_fd=parent)
        entry = Entry.of(parts[-1], os.fstat(descriptor))
        if entry.kind == "file":
            return descriptor, entry
        os.close(descriptor)
        if entry.kind != "directory":
            raise Forbidden(f"{text_of(parts)} is neither a file nor a folder", reason="kind")
        return -1, entry

    def list(self, parts: Parts, after: bytes, limit: int) -> tuple[list[Entry], bytes | None]:
        """
        A page of a folder's entries in the order of their names (bytes), those past
        C{after}; and what the next page comes after, C{None} if there is none. Memory grows
        with the page, not with the folder.
        """
        with self.folder(parts) as folder, _explained(parts, folder):
            with os.scandir(folder) as names:
                found = (os.fsencode(each.name) for each in names)
                page = heapq.nsmallest(limit + 1, (name for name in found if name > after))
            entries = [entry for name in page[:limit] if (entry := _seen(folder, name))]
            return entries, page[limit - 1] if len(page) > limit else None

    def make_folder(self, parts: Parts) -> Entry:
        """
        Make a folder.

        @raise Conflict: there is something already, or no parent folder.
        """
        with self._changing, self._parent(parts) as parent, _explained(parts, parent):
            os.mkdir(parts[-1], dir_fd=parent)
            os.fsync(parent)
            return Entry.of(parts[-1], os.lstat(parts[-1], dir_fd=parent))

    def put(self, parts: Parts, staging: int, temporary: bytes, check: CheckVersion) -> bool:
        """
        Move a finished file from the staging folder to its place, replacing the file that
        is there; whether it is new.

        @raise Conflict: a folder is in its place, or there is no parent folder.
        """
        with self._changing, self._parent(parts) as parent, _explained(parts, parent):
            while True:
                now = self.replaceable(parts, parent)
                check(now.version if now else None)
                try:
                    _place(staging, temporary, parent, parts[-1], now)
                except FileExistsError:
                    continue  # Another program was faster: look again.
                os.fsync(parent)
                return now is None

    def replaceable(self, parts: Parts, parent: int) -> Entry | None:
        """
        The file that a new one would replace.

        @raise Conflict: what is there is no file.
        """
        now = _seen(parent, parts[-1])
        if now is not None and now.kind == "link":
            raise _is_link(parts)
        if now is not None and now.kind != "file":
            raise Conflict(f"{text_of(parts)} is a folder, not a file", reason="kind")
        return now

    def check_put(self, parts: Parts, check: CheckVersion) -> None:
        """Raise now what L{put} would raise at the end of an upload."""
        with self._parent(parts) as parent:
            now = self.replaceable(parts, parent)
            check(now.version if now else None)

    def move(self, source: Parts, target: Parts, overwrite: bool, check: CheckVersion) -> bool:
        """
        Move a file, a link or a folder with all it contains; whether nothing was replaced.

        @raise Conflict: C{target} exists, unless C{overwrite} and it can be replaced: by a
            file a file, by a folder an empty folder.
        """
        if target[: len(source)] == source:
            raise Conflict("a folder cannot be moved into itself", reason="into-itself")
        with (
            self._changing,
            self.folder(source[:-1]) as before,
            self._parent(target) as after,
            _explained(target, after),
        ):
            now = _seen(before, source[-1])
            if now is None:
                raise _nothing_at(source)
            check(now.version)
            ends = {"src_dir_fd": before, "dst_dir_fd": after}
            new = _seen(after, target[-1]) is None
            if overwrite and not new:
                os.rename(source[-1], target[-1], **ends)
            else:
                rename_new(source[-1], target[-1], **ends)
            os.fsync(after)
            os.fsync(before)
            return new

    def delete(
        self, parts: Parts, staging: int, temporary: bytes, recursive: bool, check: CheckVersion
    ) -> bool:
        """
        Delete a file, a link, or a folder. A folder with content goes to the staging folder
        as C{temporary}, for the caller to empty: so it is gone at once, and whole. Returns
        whether it went there.

        @raise Conflict: the folder has content, and C{recursive} is not given.
        """
        with self._changing, self.folder(parts[:-1]) as parent, _explained(parts, parent):
            now = _seen(parent, parts[-1])
            if now is None:
                raise _nothing_at(parts)
            check(now.version)
            if now.kind != "directory":
                os.unlink(parts[-1], dir_fd=parent)
            elif recursive:
                os.rename(parts[-1], temporary, src_dir_fd=parent, dst_dir_fd=staging)
            else:
                os.rmdir(parts[-1], dir_fd=parent)
            os.fsync(parent)
            return now.kind == "directory" and recursive

    def _open_root(self) -> int:
        try:
            return open_root(self._root)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EEXIST):
                raise Forbidden(
                    "the workspace is no folder any more: remove what is in its place",
                    reason="link",
                ) from None
            raise explained_write(error, "the workspace") from None

    @contextmanager
    def _parent(self, parts: Parts) -> Iterator[int]:
        """The folder that something is about to come into."""
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(self.folder(parts[:-1]))
            except NotFound as error:
                raise Conflict(f"{error}: make the folder first", reason="no-parent") from None
            yield folder


def open_root(root: bytes) -> int:
    """
    The descriptor of a directory, made if it is missing. Only the last name may be no link.

    @raise OSError: it cannot be opened or made.
    """
    try:
        return os.open(root, _FOLDER)
    except FileNotFoundError:
        os.makedirs(root, mode=0o700, exist_ok=True)
        return os.open(root, _FOLDER)


def _place(staging: int, temporary: bytes, parent: int, name: bytes, now: Entry | None) -> None:
    ends = {"src_dir_fd": staging, "dst_dir_fd": parent}
    if now is None:
        rename_new(temporary, name, **ends)
    else:
        os.chmod(temporary, now.mode, dir_fd=staging)
        os.rename(temporary, name, **ends)


def _seen(folder: int, name: bytes) -> Entry | None:
    try:
        return Entry.of(name, os.lstat(name, dir_fd=folder))
    except FileNotFoundError:
        return None


@contextmanager
def _explained(parts: Parts, parent: int) -> Iterator[None]:
    """Turn an C{OSError} at a place, whose name was looked up in C{parent}, into ours."""
    try:
        yield
    except OSError as error:
        _explain(error, parts, parent)


def _explain(error: OSError, parts: Parts, parent: int) -> NoReturn:
    place = text_of(parts) or "the workspace"
    match error.errno:
        case errno.ENOENT:
            raise _nothing_at(parts) from None
        case errno.ENOTDIR | errno.ELOOP:
            now = _seen(parent, parts[-1])
            if now is not None and now.kind == "link":
                raise _is_link(parts) from None
            raise Conflict(f"{place} is not a folder", reason="kind") from None
        case errno.EEXIST:
            raise Conflict(f"{place} exists already", reason="exists") from None
        case errno.ENOTEMPTY:
            raise Conflict(f"{place} is a folder that is not empty", reason="not-empty") from None
        case errno.EISDIR:
            raise Conflict(f"{place} is a folder", reason="kind") from None
        case errno.EXDEV | errno.EBUSY:
            raise Conflict(f"{place} is on a file system of its own", reason="mount") from None
        case errno.ENXIO:
            raise Forbidden(f"{place} is neither a file nor a folder", reason="kind") from None
        case errno.ENAMETOOLONG:
            raise BadRequest(f"{place} is too long a name here", reason="path") from None
        case _:
            raise explained_write(error, place) from None


def explained_write(error: OSError, place: str) -> MatrixError | OSError:
    """What to raise for an error that can meet any writing; C{error} if we erred."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return InsufficientStorage("the disk is full: delete something first")
        case errno.EFBIG:
            return InsufficientStorage("the file is larger than this file system takes")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return Forbidden(f"{place}: no permission", reason="permission")
        case _:
            return error


def _nothing_at(parts: Parts) -> NotFound:
    return NotFound(f"there is nothing at {text_of(parts)}")


def _is_link(parts: Parts) -> Forbidden:
    return Forbidden(
        f"{text_of(parts)} is a symbolic link: links are listed, but not followed", reason="link"
    )
