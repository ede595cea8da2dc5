"""Taking one snapshot, step by step, in one thread."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from matrix.daemon.asking import NoAnswer, Router
from matrix.daemon.faults import PARTIAL, Fault, explain
from matrix.daemon.quiesce import Found
from matrix.daemon.restic import Ran, Restic
from matrix.daemon.volume import COPIES, LEFT_OUT, Volume
from matrix.files import write_whole

_QUIESCE = Path(__file__).with_name("quiesce.py")
QUIESCE_SECONDS = 600.0
"""For looking through the data and copying databases: a disk that hangs must not hold us."""

LIVE = 30.0
"""Seconds: a database that was written to within these before a snapshot is in use."""

ROUNDS = 3
"""Backups in one run, at most: another one is made when a database was written to that had
seemed to rest. It reads only what changed, so it takes seconds."""

FAMILY = ("", "-wal", "-shm", "-journal")
"""What SQLite keeps beside a database; all of it is in the copy."""

GENTLY = ("-o", "rest.connections=2")
"""Uploads at a time: two keep a line busy, and more only delay what users ask for meanwhile."""

_SPECIAL = re.compile(r"([\\*?\[\]])")


class Failed(Exception):
    """There is no snapshot."""

    def __init__(self, reason: str, retry: bool) -> None:
        super().__init__(reason)
        self.retry = retry


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that is there, as it is told."""

    snapshot: str
    bytes_added: int
    bytes_total: int
    partial: bool
    troubles: list[str] = field(default_factory=list)
    kind: str = "done"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    stage: str
    files_done: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    kind: str = "progress"


@dataclass
class _Memory:
    """What is known of the last good snapshot, after a restart too."""

    state: str = ""
    taken: dict[str, Any] = field(default_factory=dict)


Tell = Callable[[Progress], None]


class Backups:
    """Takes snapshots of one volume. Every method blocks; one at a time."""

    def __init__(self, volume: Volume, restic: Restic, router: Router, user: str) -> None:
        """
        @param user: the stable name under which snapshots are found again: machines come and go.
        """
        self._volume = volume
        self._restic = restic
        self._router = router
        self._user = user

    def last(self) -> dict[str, Any] | None:
        """The last good snapshot that was taken here, if there was one."""
        return self._remembered().taken or None

    def take(self, tags: Collection[str], only_changes: bool, tell: Tell) -> Taken | None:
        """
        Take one.

        @param only_changes: take none (C{None}) if the data are what they were at the last one.
        @raise Failed: there is none, and why.
        """
        begun = time.monotonic()
        known = self._remembered().state
        in_use: set[str] = set()
        troubles: list[str] = []
        try:
            for round_ in range(ROUNDS):
                tell(Progress("quiesce"))
                unless = known if only_changes and not round_ else None
                found = self._prepare(unless, in_use, copy=True)
                if found.state == unless:
                    return None
                taken = self._backed_up(tags, found, tell)
                torn = self._torn(found)
                troubles = [*found.troubles, *map(_torn_text, torn)]
                if not torn:
                    break
                in_use.update(torn)
        finally:
            self._sweep()
        partial = taken.partial or bool(troubles)
        result = replace(taken, partial=partial, troubles=troubles)
        self._remember(found.state, result, time.monotonic() - begun)
        return result

    def _prepare(self, unless: str | None, in_use: Collection[str], *, copy: bool) -> Found:
        if copy:
            self._sweep()
            self._volume.copies.mkdir(mode=0o700)
        wanted = {
            "data": str(self._volume.data),
            "left_out": [*LEFT_OUT, COPIES],
            "copies": str(self._volume.copies) if copy else None,
            "unless": unless,
            "in_use": list(in_use),
            "live_after": time.time() - LIVE,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(_QUIESCE)],
                input=json.dumps(wanted).encode("ascii"),
                capture_output=True,
                timeout=QUIESCE_SECONDS,
                check=False,
            )
            return Found(**json.loads(done.stdout))
        except subprocess.TimeoutExpired:
            raise Failed(
                f"looking through the data took over {QUIESCE_SECONDS:.0f} s", True
            ) from None
        except (OSError, ValueError):
            last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise Failed(f"the data could not be looked through: {last}", True) from None

    def _torn(self, before: Found) -> list[str]:
        """The databases that were read in their places while somebody wrote to them."""
        after = self._prepare(None, (), copy=False)
        return [
            name
            for name, state in after.databases.items()
            if name not in before.copied and before.databases.get(name) != state
        ]

    def _backed_up(self, tags: Collection[str], found: Found, tell: Tell) -> Taken:
        summary: dict[str, Any] = {}

        def said(line: dict[str, Any]) -> None:
            match line.get("message_type"):
                case "status":
                    done = line.get("files_done", 0), line.get("bytes_done", 0)
                    tell(Progress("backup", *done, line.get("total_bytes", found.bytes)))
                case "summary":
                    summary.update(line)

        tell(Progress("backup", bytes_total=found.bytes))
        arguments = [
            "backup", "--json", "--host", self._user, "--exclude-caches", *GENTLY,
            *(f"--tag={tag}" for tag in dict.fromkeys(tags)),
            *self._excludes(found.copied),
            ".",
        ]  # fmt: skip
        code = self._insisted(arguments, said)
        if not summary.get("snapshot_id"):
            raise Failed("restic did not say which snapshot it made", True)
        try:
            snapshot = self._router.full_id(summary["snapshot_id"])
        except NoAnswer as error:
            raise Failed(str(error), True) from None
        added = summary.get("data_added_packed", summary["data_added"])
        return Taken(snapshot, added, summary["total_bytes_processed"], code == PARTIAL)

    def _excludes(self, copied: Collection[str]) -> list[str]:
        families = [name + part for name in copied for part in FAMILY]
        root = _literal(str(self._volume.data))
        return [f"--exclude={root}/{_literal(name)}" for name in (*LEFT_OUT, *families)]

    def _insisted(self, arguments: Sequence[str], said: Callable[[dict[str, Any]], None]) -> int:
        """
        Run it; what we can put right ourselves is put right, once, and it is run again.

        @return: its exit code, with which there is a snapshot.
        """
        if self._volume.in_use.exists():
            self._restic.run("unlock")
        mended: set[str] = set()
        while True:
            ran = self._noted(arguments, said)
            if ran.code in (0, PARTIAL):
                return ran.code
            if ran.stopped:
                raise Failed("the daemon stops", True)
            fault = explain(ran.code, ran.complaint)
            if not self._mend(fault, mended):
                raise Failed(fault.reason, fault.retry)

    def _noted(self, arguments: Sequence[str], said: Callable[[dict[str, Any]], None]) -> Ran:
        self._volume.in_use.touch()
        ran = self._restic.run(*arguments, said=said, cwd=self._volume.data)
        if not ran.stopped and ran.code >= 0:
            self._volume.in_use.unlink(missing_ok=True)
        return ran

    def _mend(self, fault: Fault, mended: set[str]) -> bool:
        """Whether something was done about it that was not done before."""
        if fault.locked and "lock" not in mended:
            # Removes only locks that nobody holds any more.
            self._restic.run("unlock")
            mended.add("lock")
            return True
        if fault.no_repository and "repository" not in mended and self._is_first():
            ran = self._restic.run("init")
            if ran.code:
                again = explain(ran.code, ran.complaint)
                raise Failed(f"the repository cannot be begun: {again.reason}", again.retry)
            mended.add("repository")
            return True
        return False

    def _is_first(self) -> bool:
        """
        Whether there never was a snapshot of this user.

        @raise Failed: there were some, and their repository is gone; or nobody knows.
        """
        try:
            if self._router.has_repository():
                return False
            point = self._router.restore_point()
        except NoAnswer as error:
            raise Failed(str(error), True) from None
        if point is not None:
            raise Failed(
                f"the repository is gone, though snapshot {point.snapshot[:8]} should be in it: "
                "the operator must look at the bucket",
                retry=False,
            )
        return True

    def _sweep(self) -> None:
        if self._volume.copies.exists():
            shutil.rmtree(self._volume.copies)

    def _remembered(self) -> _Memory:
        try:
            return _Memory(**json.loads(self._volume.last.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return _Memory()

    def _remember(self, state: str, taken: Taken, seconds: float) -> None:
        told = {**asdict(taken), "seconds": round(seconds, 3), "at": round(time.time(), 3)}
        # A partial one is no reason to take no other.
        memory = _Memory("" if taken.partial else state, told)
        write_whole(self._volume.last, json.dumps(asdict(memory)).encode())


def _torn_text(name: str) -> str:
    shown = os.fsencode(name).decode("utf-8", "replace")
    return f"the database {shown} was written to without pause, so its copy may not be whole"


def _literal(text: str) -> str:
    """The text as a pattern that only it matches."""
    return _SPECIAL.sub(r"\\\1", text)
