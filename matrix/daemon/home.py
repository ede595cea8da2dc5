"""
Bringing a machine's data home: at the first boot on an empty volume, from the newest snapshot.

What a crash leaves at any line is found by what lies on the volume at the next boot:

  1. C{.matrix/restore-*/} alone: a restore that did not end. It is thrown away and begun anew.
  2. C{.matrix/moving.json}: a restore that ended, and some of it may be in place. The rest is
     moved, and nothing is restored a second time over what the user may see already.
  3. C{.matrix/whole.json}: all is in place. From now on the volume is the truth.

A volume that has data, but no such file, was filled before there was one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from twisted.logger import Logger

from matrix.daemon.asking import NoAnswer, RestorePoint, Router
from matrix.daemon.faults import explain, harmless
from matrix.daemon.restic import Restic
from matrix.daemon.volume import COPIES, LEFT_OUT, Volume
from matrix.files import write_whole

_log = Logger()

_PREFIX = "restore-"


class NotYet(Exception):
    """The data are not home; the text is one sentence that says why. It may be tried again."""


class Home:
    """One volume's way to whole data. Its methods block, but for L{is_whole} and L{done}."""

    def __init__(self, volume: Volume, router: Router | None, restic: Restic | None) -> None:
        """
        @param router: knows what is to be restored; C{None} if this machine has no snapshots.
        @param restic: C{None} if it has not the program.
        """
        self._volume = volume
        self._router = router
        self._restic = restic
        self.total = 0
        """Bytes to be restored; 0 while unknown."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is to be done."""
        return self._volume.whole.exists()

    def done(self) -> int:
        """Bytes that were restored so far, about."""
        written = self._restic.written() if self._restic is not None else 0
        return min(written, self.total) if self.total else written

    def look(self) -> bool:
        """
        Do what takes no time: finish a move, or find that nothing is to be restored.

        @return: whether the data are whole.
        @raise OSError: the volume cannot be used.
        """
        if self.is_whole:
            return True
        if self._volume.moving.exists():
            move = json.loads(self._volume.moving.read_bytes())
            self._moved(self._volume.private / move["from"], move["snapshot"])
        elif self._router is None or not self._is_empty():
            self._declare_whole(None)
        return self.is_whole

    def bring(self) -> None:
        """
        Have the data whole, and what earlier attempts left cleared away.

        @raise NotYet: they are not.
        """
        try:
            if not self.look() and self._router is not None:
                self._restored(self._router)
            self._sweep()
        except OSError as error:
            raise NotYet(f"the volume cannot be used: {error}") from None

    def _is_empty(self) -> bool:
        """Whether nobody's data are here. Empty folders are none: we made them ourselves, or the
        image did."""
        ignored = {*LEFT_OUT, COPIES}
        with os.scandir(self._volume.data) as entries:
            return not any(
                not entry.is_dir(follow_symlinks=False) or os.listdir(entry.path)
                for entry in entries
                if entry.name not in ignored
            )

    def _restored(self, router: Router) -> None:
        try:
            point = router.restore_point()
        except NoAnswer as error:
            raise NotYet(str(error)) from None
        if point is None:
            self._declare_whole(None)
            return
        if self._restic is None:
            raise NotYet("there is a snapshot to restore, and this machine has no restic")
        self._sweep()
        folder = self._volume.private / f"{_PREFIX}{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        begun = time.monotonic()
        with self._sizing(self._restic, point):
            self._fetch(self._restic, point.snapshot, folder)
        settle(folder)
        # A power cut must not leave names of files whose bytes never reached the disk.
        os.sync()
        move = {"from": folder.name, "snapshot": point.snapshot}
        write_whole(self._volume.moving, json.dumps(move).encode())
        self._volume.sync()
        self._moved(folder, point.snapshot)
        _log.info(
            "home.restored {snapshot} in {seconds:.1f} s",
            snapshot=point.snapshot,
            seconds=time.monotonic() - begun,
        )

    def _fetch(self, restic: Restic, snapshot: str, folder: Path) -> None:
        ran = restic.run("restore", snapshot, "--target", str(folder))
        if ran.stopped:
            raise NotYet("the daemon stops")
        if ran.code == 0:
            return
        small = harmless(ran.complaint)
        if not small:
            raise NotYet(explain(ran.code, ran.complaint).reason)
        # Nobody's data are missing, and another attempt would end the same.
        _log.warn("home.restored-with-faults {faults}", faults=small)

    @contextmanager
    def _sizing(self, restic: Restic, point: RestorePoint) -> Iterator[None]:
        """Find out how much it is, meanwhile."""
        self.total = point.size
        if not self.total:
            threading.Thread(target=self._weigh, args=(restic, point.snapshot), daemon=True).start()
        yield

    def _weigh(self, restic: Restic, snapshot: str) -> None:
        arguments = ("stats", "--json", "--no-lock", "--mode", "restore-size", snapshot)
        ran, said = restic.collect(*arguments)
        if ran.code == 0:
            with suppress(ValueError, KeyError):
                self.total = int(json.loads(said)["total_size"])

    def _moved(self, folder: Path, snapshot: str) -> None:
        if folder.exists():
            for name in os.listdir(folder):
                # Over an empty folder of ours this is possible, over anything else it fails.
                os.rename(folder / name, self._volume.data / name)
        self._volume.sync()
        self._declare_whole(snapshot)

    def _declare_whole(self, snapshot: str | None) -> None:
        record = {"restored": snapshot, "at": round(time.time(), 3)}
        write_whole(self._volume.whole, json.dumps(record).encode())
        self._volume.sync()

    def _sweep(self) -> None:
        for left in self._volume.private.glob(f"{_PREFIX}*"):
            shutil.rmtree(left, onerror=_opened)
        if self.is_whole:
            self._volume.moving.unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """
    Put copies of databases into their places in what restic restored. Blocks.

    @param folder: where restic restored a whole snapshot to.
    """
    copies = folder / COPIES
    if not copies.is_dir():
        return
    for place, _, names in os.walk(copies):
        target = folder / Path(place).relative_to(copies)
        if not names:
            continue
        target.mkdir(parents=True, exist_ok=True)
        seen = target.stat()
        for name in names:
            os.replace(Path(place) / name, target / name)
        os.utime(target, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    shutil.rmtree(copies)


def _opened(function: Callable[..., object], path: str, _: object) -> None:
    """What C{rmtree} could not do because a folder was restored as closed to its owner."""
    for folder in (os.path.dirname(path), path):
        if os.path.isdir(folder) and not os.path.islink(folder):
            os.chmod(folder, 0o700)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
