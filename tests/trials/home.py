"""A user's home as they are: many small files, media, links, odd modes, a database in use."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

MIB = 1 << 20
WRITER = Path(__file__).with_name("writer.py")

SMALL_FILES = 20
"""For each megabyte, of up to 2 KB each."""
MEDIA = 4
MEDIA_SHARE = 0.17
"""Of the size, each: with three tenths in the database that leaves two hundredths for the rest."""
DATABASE_SHARE = 0.3

ODD = (0o400, 0o444, 0o604, 0o711, 0o777, 0o2755)
"""Modes, all of which their owner can read."""


def write(path: Path, size: int, chance: random.Random) -> None:
    """A file of random bytes, with a mode and a time of its own."""
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            file.write(chance.randbytes(min(MIB, size - start)))
    path.chmod(chance.choice([0o600, 0o644, 0o755]))
    moment = chance.randrange(10**9) + 0.25
    os.utime(path, (moment, moment))


def make_home(folder: Path, megabytes: int, chance: random.Random) -> None:
    """All of it but the database."""
    for name in ("small", "media", "odd"):
        (folder / name).mkdir()
    for number in range(SMALL_FILES * megabytes):
        place = folder / "small" / f"{number % 97:02}"
        place.mkdir(exist_ok=True)
        write(place / str(number), chance.randrange(2000), chance)
    for number in range(MEDIA):
        write(folder / "media" / str(number), int(megabytes * MIB * MEDIA_SHARE), chance)
    make_odd(folder / "odd", chance)


def make_odd(folder: Path, chance: random.Random) -> None:
    """Links of both kinds, modes, names and folders that few programs expect."""
    (folder / "link").symlink_to("../media")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "empty").touch()
    os.link(folder / "empty", folder / "twin")
    for mode in ODD:
        write(folder / f"{mode:o}", 100, chance)
        (folder / f"{mode:o}").chmod(mode)
    for name in ("two\nlines", "wörds & más", " "):
        write(folder / name, 100, chance)
    write(Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")), 100, chance)
    (folder / "deep" / "er" / "hollow").mkdir(parents=True)
    (folder / "closed").mkdir()
    write(folder / "closed" / "file", 100, chance)
    (folder / "closed").chmod(0o500)
    (folder / "shared").mkdir()
    (folder / "shared").chmod(0o1777)


def change(folder: Path, size: int, chance: random.Random) -> None:
    """Change some bytes: a new file of nine tenths, the rest in a hundred old ones."""
    write(folder / "media" / f"new-{chance.getrandbits(64):x}", size * 9 // 10, chance)
    files = sorted(path for path in (folder / "small").rglob("*") if path.is_file())
    for path in chance.sample(files, min(100, len(files))):
        write(path, size // 1000, chance)


def give(folder: Path, owner: os.stat_result) -> None:
    """Make all of it another's, with modes as they were: the kernel clears some bits."""
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place) / name
            mode = path.lstat().st_mode
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
            if not stat.S_ISLNK(mode):
                path.chmod(stat.S_IMODE(mode))


Listing = Mapping[str, tuple[object, ...]]


def listing(folder: Path, without: str = "") -> Listing:
    """
    What there is: kind and mode, time, content or target, and which other name is the same file.

    @param without: beginning of the paths that are left out.
    """
    found: dict[str, tuple[object, ...]] = {}
    names: dict[int, str] = {}
    for place, folders, files in os.walk(folder):
        for path in sorted(Path(place) / name for name in [*folders, *files]):
            name = str(path.relative_to(folder))
            if without and name.startswith(without):
                continue
            seen = path.lstat()
            content = ""
            if stat.S_ISLNK(seen.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(seen.st_mode):
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                names.setdefault(seen.st_ino, name)
            kin = names.get(seen.st_ino) if seen.st_nlink > 1 else None
            found[name] = (oct(seen.st_mode), seen.st_mtime_ns, content, kin)
    return found


def differences(one: Listing, other: Listing) -> list[str]:
    """What is not the same, in words."""
    return [
        f"{name!r}: {one.get(name)} became {other.get(name)}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


class Base:
    """A program of the user's with a database (in WAL mode) that it never stops writing to."""

    def __init__(self, path: Path, owner: os.stat_result, environment: Mapping[str, str]) -> None:
        """@param owner: whose files they are; SQLite, as root, gives its logs to the same."""
        path.touch()
        os.chown(path, owner.st_uid, owner.st_gid)
        self.path = path
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WRITER), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=path.parent,
            env=dict(environment),
            text=True,
        )

    def do(self, what: str, *numbers: int) -> int:
        """
        Have it do something more: C{fill BYTES}, C{alter ROW}, C{tell}.

        @return: the last row that is committed now.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(what, *numbers, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it, unless somebody has."""
        self._process.kill()
        self._process.communicate()


def verify(path: Path) -> tuple[int, list[int]]:
    """
    Read a database whole.

    @return: how many rows it has, and which were altered.
    @raise AssertionError: it is not what the program wrote.
    """
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        altered = []
        number = 0
        rows = base.execute("SELECT id, version, digest, text FROM notes ORDER BY id")
        for number, (id, version, digest, text) in enumerate(rows, 1):
            assert id == number, f"row {number} is missing"
            assert hashlib.sha256(text).digest() == digest, f"row {id} is not what was written"
            if version:
                altered.append(id)
    return number, altered
