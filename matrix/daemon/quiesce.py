"""
Makes a volume fit to be read by a backup: run as C{python -I -S quiesce.py}, JSON in and out.

It says what the data are now, in one number, and which SQLite databases are among them; of those
that are in use it makes copies by SQLite's own backup API, as a file that is read while another
program writes it would be torn. It is a program of its own because whoever opens and closes a
file loses all locks that the same process has on it: the daemon must never touch a database in
this way that it may have open itself. It imports nothing of Matrix.

Standard input: C{{"data", "left_out", "copies", "unless", "in_use", "live_after"}}. Standard
output: see L{Found}. A database and its C{-wal} and C{-journal} are one family; one that nobody
wrote to during the whole backup is right as it lies there, and is not copied.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

HEADER = b"SQLite format 3\0"
SECTOR = 512
"""Bytes: a database's size is a multiple of its page size, and that of this."""
TAG = b"Signature: 8a477f597d28d172789f06886806bc55"
"""How a directory's CACHEDIR.TAG begins whose content can be made again (bford.info/cachedir)."""
COPY_SECONDS = 60.0
"""For one database. A writer that never pauses makes SQLite begin anew each time."""
HELD_SECONDS = 300.0
"""For one that changes may be made to meanwhile, without that the copy begins anew."""
PAGES = 4096
"""Copied in one step; in between other connections get their turn."""
TICK = 0.05
"""Seconds: two writes within less may bear the same time (a kernel's tick is up to 10 ms)."""
HEAD = 100
"""Bytes of a database's header; the counter in it goes up with each change."""
PATIENCE = 1.0
"""Seconds that one step waits for a lock, before it is looked whether the time is up."""
PAUSE = 0.02
"""Seconds between two steps that met a lock."""


@dataclass
class Found:
    """What there is, as it goes to the caller."""

    state: str = ""
    """The same as long as no file, link, folder or mode has changed."""
    files: int = 0
    bytes: int = 0
    databases: dict[str, str] = field(default_factory=dict)
    """Path (relative, surrogate-escaped) of each database left in its place: what its family
    was."""
    copied: list[str] = field(default_factory=list)
    """Those of which there are copies now; they and their families are to be left out."""
    troubles: list[str] = field(default_factory=list)
    """Sentences: what could not be done as it should."""


def main() -> None:
    """Answer one request."""
    wanted = json.load(sys.stdin.buffer)
    sys.stdout.write(json.dumps(asdict(prepare(wanted))))


def prepare(wanted: dict[str, Any]) -> Found:
    """
    Look at the data, and copy what is in use.

    With C{unless} the present state nothing is copied. With C{copies} C{null} nothing is either.
    """
    os.umask(0o077)
    data = os.fsencode(wanted["data"])
    found = Found()
    walk = Walk(data, {os.fsencode(name) for name in wanted["left_out"]})
    found.state = walk.digest()
    found.files, found.bytes = walk.files, walk.bytes
    copying = wanted["copies"] is not None and found.state != wanted["unless"]
    for path, family in walk.families():
        name = os.fsdecode(path)
        in_use = name in wanted["in_use"] or family.latest >= wanted["live_after"]
        if copying and in_use and _copied(data, path, os.fsencode(wanted["copies"]), found):
            found.copied.append(name)
        else:
            found.databases[name] = family.state
    if copying:
        _sync(data)
    return found


@dataclass
class Family:
    """A database, with what SQLite keeps beside it."""

    state: str
    latest: float
    """When any of it was written last, in unix seconds."""


class Walk:
    """One pass over the data."""

    def __init__(self, data: bytes, left_out: set[bytes]) -> None:
        self._data = data
        self._seen: dict[bytes, os.stat_result] = {}
        self._candidates: list[bytes] = []
        self.files = 0
        self.bytes = 0
        self._lines: list[bytes] = []
        waiting = [b""]
        while waiting:
            waiting.extend(self._folder(waiting.pop(), left_out))

    def digest(self) -> str:
        """One number for all that was seen."""
        digest = blake2b(digest_size=16)
        for line in sorted(self._lines):
            digest.update(line)
        return digest.hexdigest()

    def families(self) -> Iterator[tuple[bytes, Family]]:
        """Each database."""
        for path in self._candidates:
            beside = [path, path + b"-wal", path + b"-journal"]
            there = [self._seen.get(each) for each in beside]
            if (there[1] or there[2]) or _has_header(os.path.join(self._data, path)):
                stats = [each for each in there if each is not None]
                yield (
                    path,
                    Family(
                        "/".join(map(_state, stats)),
                        max(max(each.st_mtime, each.st_ctime) for each in stats),
                    ),
                )

    def _folder(self, folder: bytes, left_out: set[bytes]) -> list[bytes]:
        try:
            with os.scandir(os.path.join(self._data, folder)) as entries:
                names = [entry.name for entry in entries]
        except OSError:
            return []  # Gone again, or closed to us: restic will say so.
        if b"CACHEDIR.TAG" in names and _is_cache(os.path.join(self._data, folder)):
            return []
        below = []
        for name in names:
            if not folder and name in left_out:
                continue
            path = os.path.join(folder, name)
            if self._entry(path):
                below.append(path)
        return below

    def _entry(self, path: bytes) -> bool:
        """Take it in; whether it is a folder."""
        try:
            seen = os.lstat(os.path.join(self._data, path))
        except OSError:
            return False
        kind = stat.S_IFMT(seen.st_mode)
        if kind == stat.S_IFSOCK or path.endswith(b"-shm"):
            return False  # Not data: a socket, or what SQLite shares in memory.
        if kind == stat.S_IFDIR:
            self._lines.append(b"%b\0%o\0%d\n" % (path, seen.st_mode, seen.st_uid))
            return True
        self._lines.append(b"%b\0%b\n" % (path, _state(seen).encode()))
        if kind == stat.S_IFREG:
            self.files += 1
            self.bytes += seen.st_size
            self._seen[path] = seen
            if seen.st_size >= SECTOR and seen.st_size % SECTOR == 0:
                self._candidates.append(path)
        return False


def _state(seen: os.stat_result) -> str:
    return f"{seen.st_ino}-{seen.st_size}-{seen.st_mtime_ns}-{seen.st_ctime_ns}-{seen.st_mode}"


def _has_header(path: bytes) -> bool:
    return _begins(path, HEADER)


def _is_cache(folder: bytes) -> bool:
    return _begins(os.path.join(folder, b"CACHEDIR.TAG"), TAG)


def _begins(path: bytes, mark: bytes) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return False
    try:
        return os.read(descriptor, len(mark)) == mark
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _copied(data: bytes, path: bytes, copies: bytes, found: Found) -> bool:
    """Copy a database; whether that was possible. If not it is taken as it lies there."""
    source, target = os.path.join(data, path), os.path.join(copies, path)
    name = os.fsdecode(path).encode("utf-8", "replace").decode()
    if not _has_header(source):
        return False
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        seen = os.stat(source)
        if not _copied_as_it_lies(source, target):
            _copy(source, target)
        os.chmod(target, stat.S_IMODE(seen.st_mode))
        if os.geteuid() == 0:
            os.chown(target, seen.st_uid, seen.st_gid)
        os.utime(target, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    except (sqlite3.Error, OSError) as error:
        if os.path.lexists(target):
            os.unlink(target)
        found.troubles.append(f"the database {name} could not be copied: {error}")
        return False
    return True


def _copied_as_it_lies(source: bytes, target: bytes) -> bool:
    """
    Copy the bytes; whether nobody wrote meanwhile, so that they are right. SQLite's own copies
    differ in their headers: a user who compares finds the same file this way.
    """
    before = _settled(source)
    if before is None:
        time.sleep(TICK)  # Perhaps it was only a moment ago.
        before = _settled(source)
    if before is None:
        return False
    shutil.copyfile(source, target)
    if _settled(source) == before:
        return True
    os.unlink(target)
    return False


def _settled(source: bytes) -> tuple[str, bytes] | None:
    """What tells one state of a database from another; C{None} if it is amid a change."""
    for log in (b"-wal", b"-journal"):
        with suppress(FileNotFoundError):
            if os.stat(source + log).st_size:
                return None
    seen = os.stat(source)
    if time.time() - seen.st_mtime < TICK:
        return None
    with open(source, "rb") as file:
        return _state(seen), file.read(HEAD)


def _copy(source: bytes, target: bytes) -> None:
    """
    @raise sqlite3.Error: it is damaged, or was never free.
    """
    # Closing the copy leaves one file: its only connection takes every log with it.
    with closing(_opened(source, "ro")) as there, closing(_opened(target, "rwc")) as here:
        seconds, what = COPY_SECONDS, "it was in use"
        if _held(there):
            seconds, what = HELD_SECONDS, "it was copied"
        end = time.monotonic() + seconds

        def patience(status: int, remaining: int, total: int) -> None:
            if time.monotonic() > end:
                raise sqlite3.OperationalError(f"{what} for {seconds:.0f} s without pause or end")

        here.execute("PRAGMA synchronous = OFF")
        there.backup(here, pages=PAGES, progress=patience, sleep=PAUSE)


def _held(base: sqlite3.Connection) -> bool:
    """
    Read one state of a database from now on, if that stops nobody from writing: with a
    write-ahead log. Else SQLite begins anew with each change, and a large one is never copied.
    """
    try:
        if base.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            return False
        base.execute("BEGIN")
        base.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        base.rollback()  # It is locked: the copying itself has the patience.
    return base.in_transaction


def _opened(path: bytes, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(path)}?mode={mode}", uri=True, timeout=PATIENCE)


def _sync(data: bytes) -> None:
    """Have the file system write what it holds back: what is read was then once on the disk."""
    descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ctypes.CDLL(None).syncfs(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
