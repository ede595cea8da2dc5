"""A restore for practice: the newest snapshot brought back, compared, timed and thrown away."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThreadPool

from matrix.processes import find
from matrix.snapshots.restic import Restic, ResticFailed, leftover

SPARE = 1.1
"""Times the snapshot's size must be free: blocks are larger than what is in them."""

CLOCK = 1e-3
"""Seconds within which times are the same: text and floats both leave something out."""

TOLD = 5
"""Differences that are named."""


SCRATCH = "matrix-drill-"
"""What the names of folders of drills begin with; the process's id follows."""


class Different(ResticFailed):
    """What came back is not what was stored."""


@dataclass(frozen=True, slots=True)
class Drilled:
    """A restore that went well."""

    snapshot: str
    files: int
    bytes: int
    seconds: float


class Drill:
    """One of them."""

    def __init__(self, reactor: Any, restic: Restic, folder: Path) -> None:
        self._reactor = reactor
        self._restic = restic
        self._folder = folder

    async def run(self) -> Drilled:
        """
        See L{matrix.snapshots.Keeper.drill}.

        @raise ResticFailed: it did not go well.
        """
        snapshot = (await self._restic.read("snapshots"))[-1]["id"]
        [stats] = await self._restic.read("stats", "--mode", "restore-size", snapshot)
        size = int(stats["total_size"])
        await self._in_thread(make_room, self._folder, size)
        try:
            began = self._reactor.seconds()
            await self._restic.run("restore", snapshot, "--target", str(self._folder), "--verify")
            seconds = self._reactor.seconds() - began
            nodes = await self._restic.read("ls", snapshot)
            wrong = await self._in_thread(differences, self._folder, nodes)
        finally:
            await self._in_thread(leftover, self._folder)
        if wrong:
            more = ", …" if len(wrong) > TOLD else ""
            raise Different(f"restored, and different: {', '.join(wrong[:TOLD])}{more}")
        return Drilled(snapshot, len(nodes) - 1, size, seconds)

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        reactor = self._reactor
        return await deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)


def scratch_folder() -> Path:
    """A new folder for a drill of this process, closed to others."""
    return Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-"))


def sweep_drills(place: Path | None = None) -> int:
    """
    Remove what drills of processes that were killed have left: it is some user's data.

    @return: how many there were.
    """
    count = 0
    for folder in (place or Path(tempfile.gettempdir())).glob(f"{SCRATCH}*"):
        number = folder.name.removeprefix(SCRATCH).partition("-")[0]
        if number.isdigit() and find(int(number)) is None and folder.stat().st_uid == os.geteuid():
            leftover(folder)
            count += 1
    return count


def make_room(folder: Path, size: int) -> None:
    """
    Make an empty folder where so many bytes fit.

    @raise ResticFailed: they do not.
    """
    if folder.exists():
        leftover(folder)
    folder.mkdir(mode=0o700, parents=True)
    free = shutil.disk_usage(folder).free
    if free < size * SPARE:
        folder.rmdir()
        raise ResticFailed(
            f"{folder.parent} has {free} bytes free, and the snapshot needs {size}: set TMPDIR "
            "to a place with more room"
        )


def differences(folder: Path, listing: Sequence[Mapping[str, Any]]) -> list[str]:
    """
    What is not as restic's listing has it, a few words for each: kinds, sizes, modes, times,
    and what is there besides. (The contents restic has verified.)
    """
    nodes = {one["path"]: one for one in listing if one.get("struct_type") == "node"}
    found = [
        f"{path} {wrong}"
        for path, node in nodes.items()
        if (wrong := _difference(Path(f"{folder}{path}"), node))
    ]
    found += [f"{path} besides" for path in _paths(folder) if path not in nodes]
    return found


_KINDS = {"dir": stat.S_ISDIR, "file": stat.S_ISREG, "symlink": stat.S_ISLNK}


def _difference(path: Path, node: Mapping[str, Any]) -> str | None:
    try:
        seen = path.lstat()
    except OSError as error:
        return f"({error.strerror})"
    is_kind = _KINDS.get(node["type"])
    if is_kind is None:
        return None
    if not is_kind(seen.st_mode):
        return f"is no {node['type']}"
    if node["type"] == "symlink":
        return None
    if node["type"] == "file" and seen.st_size != node["size"]:
        return f"has {seen.st_size} bytes, not {node['size']}"
    if stat.S_IMODE(seen.st_mode) & 0o777 != node["mode"] & 0o777:
        return "has another mode"
    if abs(seen.st_mtime - datetime.fromisoformat(node["mtime"]).timestamp()) > CLOCK:
        return "has another time"
    return None


def _paths(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield os.path.join(parent, name)[len(str(folder)) :]
