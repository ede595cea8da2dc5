"""One snapshot at a time: who asked for it, who follows it, and how the last one went."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.daemon.backup import Backups, Failed, Progress, Taken
from matrix.errors import Conflict

_log = Logger()

Follower = Callable[[dict[str, Any]], None]
"""Called with each event of a run."""

REPEAT = 5.0
"""Seconds after which the last progress is told again: who listens must not take a slow
repository for a broken connection."""

SPACING = 0.5
"""Seconds between two tellings of progress, at least."""


class Run:
    """A snapshot that is being taken."""

    def __init__(self, cause: str, seconds: Callable[[], float]) -> None:
        self.cause = cause
        self.since = time.time()
        self._seconds = seconds
        self._began = seconds()
        self._told = 0.0
        self._followers: list[Follower] = []
        self.progress = Progress("quiesce")

    @property
    def duration(self) -> float:
        """Seconds so far."""
        return round(self._seconds() - self._began, 3)

    def follow(self, follower: Follower) -> None:
        """Tell it how far the run is, now and from now on."""
        self._followers.append(follower)
        follower(asdict(self.progress))

    def leave(self, follower: Follower) -> None:
        """Tell it nothing more."""
        if follower in self._followers:
            self._followers.remove(follower)

    def advance(self, progress: Progress) -> None:
        """It is as far as that."""
        turned = progress.stage != self.progress.stage
        self.progress = progress
        if turned or self._seconds() - self._told >= SPACING:
            self.repeat()

    def repeat(self) -> None:
        """Tell all who follow how far it is."""
        self._told = self._seconds()
        self.tell(asdict(self.progress))

    def tell(self, event: dict[str, Any]) -> None:
        """Tell all who follow."""
        for follower in list(self._followers):
            follower(event)


class Runs:
    """Takes snapshots when asked, and remembers the last."""

    def __init__(self, backups: Backups, in_thread: Callable[..., Deferred[Any]], reactor: Any):
        self._backups = backups
        self._in_thread = in_thread
        self._reactor = reactor
        self.running: Run | None = None
        self.last: dict[str, Any] | None = backups.last()
        """The event that ended the last run, with its cause and time if it was in our life."""
        self._good = self.last
        """The event of the last good one."""

    def begin(self, cause: str, tags: Sequence[str], only_changes: bool) -> Run:
        """
        Begin one. It goes on whoever follows it.

        @raise Conflict: one is under way.
        """
        if self.running is not None:
            raise Conflict("a snapshot is being taken already: follow it", reason="running")
        run = self.running = Run(cause, self._reactor.seconds)
        pulse = LoopingCall(run.repeat)
        pulse.clock = self._reactor
        pulse.start(REPEAT, now=False)

        def tell(progress: Progress) -> None:
            self._reactor.callFromThread(run.advance, progress)

        def over(event: dict[str, Any]) -> None:
            pulse.stop()
            self._over(run, event)

        taking = self._in_thread(self._backups.take, [cause, *tags], only_changes, tell)
        taking.addCallbacks(
            lambda taken: self._told(run, taken), lambda failure: _failed(run, failure)
        )
        taking.addCallback(over)
        taking.addErrback(lambda failure: _log.failure("ending a snapshot failed", failure=failure))
        return run

    def _told(self, run: Run, taken: Taken | None) -> dict[str, Any]:
        if taken is None:
            # Who asks may have missed how that one ended.
            return {"kind": "unchanged", "seconds": run.duration, "last": self._good}
        self._good = {**asdict(taken), "seconds": run.duration}
        return self._good

    def _over(self, run: Run, event: dict[str, Any]) -> None:
        self.running = None
        self.last = {**event, "cause": run.cause, "at": round(time.time(), 3)}
        run.tell(event)
        _log.info("snapshot.over {event}", event=event)


def _failed(run: Run, failure: Failure) -> dict[str, Any]:
    error = failure.value
    if not isinstance(error, Failed):
        _log.failure("taking a snapshot failed", failure=failure)
        return {"kind": "failed", "reason": "the daemon erred; its log says how", "retry": True}
    return {"kind": "failed", "reason": str(error), "retry": error.retry}
