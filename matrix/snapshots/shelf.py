"""One user's snapshots, brought back to a folder of the operator's. Everything here blocks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from matrix.errors import ConfigurationError
from matrix.model import UserId
from matrix.snapshots.restic import COMPLAINT_BYTES, Desk, ResticFailed, failure, leftover

_SPECIAL = re.compile(r"([\\*?\[\]])")

SHORTEST_ID = 4
"""Digits: fewer name too many."""


@dataclass(frozen=True, slots=True)
class Dated:
    """A snapshot, and when it was taken, by its machine's clock."""

    id: str
    at: datetime


class NoSuchSnapshot(LookupError):
    """There is none that is meant; the text says which there are."""


def choose(shelf: Sequence[Dated], before: datetime | None = None, id: str | None = None) -> Dated:
    """
    The snapshot that is meant: the newest, at or before a moment, or the one of this id.

    @param id: its beginning will do.
    @raise NoSuchSnapshot: there is none, or there are several.
    """
    dated = sorted(shelf, key=lambda one: one.at)
    if not dated:
        raise NoSuchSnapshot("there is no snapshot of this user")
    if id is not None:
        found = [one for one in dated if one.id.startswith(id)]
        if len(found) != 1 or len(id) < SHORTEST_ID:
            raise NoSuchSnapshot(
                f"{id!r} begins the ids of {len(found)} snapshots: give at least {SHORTEST_ID} "
                "digits of one"
            )
        return found[0]
    if before is not None:
        dated = [one for one in dated if one.at <= before]
        if not dated:
            oldest = min(one.at for one in shelf)
            raise NoSuchSnapshot(f"the oldest snapshot is of {oldest:%Y-%m-%d %H:%M:%S %Z}")
    return dated[-1]


class Shelf:
    """A user's repository, opened with the rights of the desk."""

    def __init__(self, desk: Desk, user_id: UserId, password: str) -> None:
        self._desk = desk
        self._environment = desk.environment(user_id, password)

    def snapshots(self) -> list[Dated]:
        """
        Those that there are.

        @raise ResticFailed: that cannot be seen.
        """
        listed = json.loads(self._run("snapshots", "--no-lock", "--json"))
        return [Dated(one["id"], datetime.fromisoformat(one["time"])) for one in listed or []]

    def bring(self, snapshot: Dated, target: Path, stand_ins: str, only: str | None = None) -> None:
        """
        Restore a snapshot to a folder that there is not yet, or one file or folder of it.

        It is there when it is whole, and not before.

        @param stand_ins: the top-level folder of copies that stand for the files of the same
            paths; they are put in their places.
        @param only: the path of what is wanted, in the snapshot; it comes to C{target} itself.
        @raise ResticFailed: it cannot be restored, or there is no such path.
        @raise OSError: it cannot be written there.
        """
        if os.path.lexists(target):
            raise FileExistsError(17, "there is something already", str(target))
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            path = _inside(only) if only is not None else None
            wanted = [] if path is None else _including(path, stand_ins)
            self._run("restore", snapshot.id, "--target", str(scratch), *wanted)
            put_in_place(scratch / stand_ins, scratch)
            found = scratch if path is None else scratch / path
            if not os.path.lexists(found):
                raise ResticFailed(f"there is no {only} in snapshot {snapshot.id[:8]}")
            found.rename(target)
        finally:
            if scratch.exists():
                leftover(scratch)

    def _run(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                self._desk.command(*arguments),
                env=self._environment,
                cwd=tempfile.gettempdir(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except ConfigurationError as error:
            raise ResticFailed(str(error)) from None
        if done.returncode:
            said = done.stderr[-COMPLAINT_BYTES:].decode("utf-8", "replace")
            raise failure(arguments[0], done.returncode, said)
        return done.stdout.decode("utf-8", "replace")


def put_in_place(copies: Path, root: Path) -> None:
    """Move the files below C{copies} to the same paths below C{root}, and be rid of the rest."""
    if not copies.is_dir() or copies.is_symlink():
        return
    for parent, _, names in os.walk(copies):
        below = root / Path(parent).relative_to(copies)
        below.mkdir(parents=True, exist_ok=True)
        for name in names:
            Path(parent, name).replace(below / name)
    shutil.rmtree(copies)


def _inside(path: str) -> PurePosixPath:
    """
    A path in a snapshot, without the slash.

    @raise ResticFailed: it leads out of it, or nowhere.
    """
    found = PurePosixPath(path.lstrip("/"))
    if not found.parts or ".." in found.parts:
        raise ResticFailed(f"{path!r} is no path of a file in a snapshot")
    return found


def _including(path: PurePosixPath, stand_ins: str) -> list[str]:
    places = (f"/{path}", f"/{stand_ins}/{path}")
    return ["--include=" + _SPECIAL.sub(r"\\\1", one) for one in places]
