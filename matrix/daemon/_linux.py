"""System calls that Python's standard library lacks: inotify and an exclusive rename."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

# linux/inotify.h
IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000
IN_ISDIR = 0x40000000

# linux/fs.h
_RENAME_NOREPLACE = 1

_HEADER = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class Notice(NamedTuple):
    """One C{struct inotify_event}."""

    watch: int
    mask: int
    cookie: int
    name: bytes


def parse_notices(data: bytes) -> Iterator[Notice]:
    """What one read of an inotify descriptor returned."""
    offset = 0
    while offset < len(data):
        watch, mask, cookie, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        yield Notice(watch, mask, cookie, data[offset : offset + length].rstrip(b"\0"))
        offset += length


def inotify_open() -> int:
    """
    A new inotify descriptor, non-blocking and not inherited.

    @raise OSError: EMFILE, the user has too many already.
    """
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_watch(descriptor: int, directory: int, mask: int) -> int:
    """
    Watch an open directory; the same number for the same directory.

    Through /proc, because the call takes only paths, and a path can be swapped for a
    symbolic link between a look and the call.

    @raise OSError: ENOSPC, the user watches too many directories already.
    """
    path = b"/proc/self/fd/%d" % directory
    return _checked(_libc.inotify_add_watch(descriptor, path, mask | IN_ONLYDIR))


def inotify_unwatch(descriptor: int, watch: int) -> None:
    """Watch a directory no longer. One that is gone already is no error."""
    _libc.inotify_rm_watch(descriptor, watch)


def rename_new(source: bytes, target: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """
    Rename, unless C{target} exists (renameat2(2)).

    @raise FileExistsError: it does.
    """
    try:
        _checked(_libc.renameat2(src_dir_fd, source, dst_dir_fd, target, _RENAME_NOREPLACE))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        # A file system without the flag (NFS): all but atomic has to do.
        if _exists(target, dst_dir_fd):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        os.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)


def _exists(name: bytes, directory: int) -> bool:
    try:
        os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
