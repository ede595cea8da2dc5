"""A machine's snapshots: the parts that take and read them, with threads of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from matrix.daemon.asking import Router
from matrix.daemon.backup import Backups
from matrix.daemon.briefing import Briefing
from matrix.daemon.home import Home
from matrix.daemon.past import Past
from matrix.daemon.restic import PROGRAM, Restic, is_installed
from matrix.daemon.runs import Runs
from matrix.daemon.volume import Volume

THREADS = 5
"""One for a snapshot that is taken, the others for people who look into old ones. What waits
for restic must not keep the workspace waiting, so these are not its threads."""


def lacking(briefing: Briefing | None) -> str | None:
    """What this machine lacks for snapshots, in one sentence; C{None} if nothing."""
    if briefing is None:
        return "this machine was given no repository for snapshots: MATRIX_RESTIC_REPOSITORY"
    if not is_installed():
        return f"this machine has no {PROGRAM}: install it in the machine's image"
    return None


@dataclass(frozen=True, slots=True)
class Offer:
    """What a machine can do with snapshots."""

    runs: Runs
    past: Past
    in_thread: Callable[..., Deferred[Any]]
    """Calls what waits for restic."""


class Snapshots:
    """What there is for them; L{start} it before, and L{stop} it after."""

    def __init__(self, reactor: Any, volume: Volume, briefing: Briefing | None) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, THREADS, name="snapshots")
        self._restic: Restic | None = None
        self.offered: Offer | str = lacking(briefing) or ""
        """What this machine can do with snapshots; or, in one sentence, what it lacks."""
        router = None if briefing is None else Router(briefing)
        if briefing is not None and router is not None and not self.offered:
            self._restic = Restic(briefing, volume)
            backups = Backups(volume, self._restic, router, briefing.user)
            runs = Runs(backups, self.in_thread, reactor)
            self.offered = Offer(runs, Past(self._restic), self.in_thread)
        self.home = Home(volume, router, self._restic)

    def in_thread(self, *call: Any) -> Deferred[Any]:
        """Call a function that blocks."""
        return deferToThreadPool(self._reactor, self._pool, *call)

    def start(self) -> None:
        """Be ready for work."""
        self._pool.start()

    def stop(self) -> None:
        """End what runs: a snapshot or a restore broken off is simply begun again."""
        if self._restic is not None:
            self._restic.stop()
        self._pool.stop()
