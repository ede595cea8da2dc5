"""What is written down of snapshots: their rows, their events, their numbers, their next time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.directory import DirectoryUnavailable, UnknownUser
from matrix.metrics import Registry, series
from matrix.model import Machine, Snapshot, UserId
from matrix.router.fleet import Fleet
from matrix.router.snapshots.report import Done, Failed, Outcome
from matrix.router.snapshots.run import Run, patiently, word_for
from matrix.snapshots import Schedule
from matrix.snapshots.schedule import LONGEST_RETRY

BEFORE_SLEEP = "suspend"
"""The cause of the last snapshot before a machine sleeps: after it none is due."""

USUAL = "interval"
"""The cause of those that are no event: there are twelve an hour of each machine in use, and
C{matrix snapshots} lists them."""

NAME_LENGTH = 8
"""Characters of a snapshot's name that restic shows, and that are enough to name it."""

_log = Logger()


class Book:
    """Enters how snapshots ended."""

    def __init__(
        self,
        fleet: Fleet,
        schedule: Schedule,
        registry: Registry,
        under_way: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """
        @param under_way: how many snapshots this process has taken now.
        @param chance: evenly from 0 to 1.
        """
        self._clock = fleet.clock
        self._directory = fleet.directory
        self._records = fleet.directory.snapshots
        self._schedule = schedule
        self._registry = registry
        self._chance = chance
        self._failures: dict[UserId, int] = {}
        self._strangers: dict[UserId, str | None] = {}
        """Machines whose programs take no snapshots, with the boots that it was seen in."""
        self.next: dict[UserId, float] = {}
        """Until when (the clock's seconds) it is no use to ask whether a user's is due."""
        registry.watch(series.SNAPSHOTS_UNDER_WAY, under_way)

    def is_none_of_ours(self, machine: Machine) -> bool:
        """Whether what was last booted in the machine is known to take no snapshots."""
        unknown = object()
        return self._strangers.get(machine.user_id, unknown) == machine.boot_id

    def first(self) -> float:
        """Seconds until the first one of a machine that was just woken."""
        return self._schedule.first(self._chance())

    def forget(self, user_id: UserId) -> None:
        """The user's machine is not awake any more, as far as this process knows."""
        self.next.pop(user_id, None)

    async def enter(self, run: Run, outcome: Outcome | None, seconds: float) -> None:
        """
        Write down how one ended, and when the next is due.

        @param outcome: C{None} if the machine takes none.
        @param seconds: that it took.
        @raise DirectoryUnavailable: for so long that others are left to do it.
        """
        snapshot = run.snapshot
        ours = await patiently(self._clock, lambda: self._write(run, outcome))
        cause = snapshot.cause
        self._registry.counter(series.SNAPSHOTS, cause, word_for(outcome)).value += 1
        if isinstance(outcome, Done):
            self._registry.histogram(series.SNAPSHOT_SECONDS, cause).observe(seconds)
            self._registry.counter(series.SNAPSHOT_BYTES).value += outcome.bytes_added
        if ours:
            self._tell(snapshot, outcome, seconds)

    async def _write(self, run: Run, outcome: Outcome | None) -> bool:
        snapshot, user_id, chance = run.snapshot, run.user_id, self._chance()
        if outcome is None:
            self._strangers[user_id] = run.boot_id
            return bool(await self._records.drop(snapshot, self._due(user_id, LONGEST_RETRY)))
        if isinstance(outcome, Failed):
            failures = self._failures.get(user_id, 0) + 1
            due_in = self._schedule.retry(failures, chance, worth_it=outcome.retry)
            written = await self._records.fail(snapshot, outcome.reason, due_in)
            self._failures[user_id] = failures
            self._due(user_id, due_in)
            return bool(written)
        sleeps = snapshot.cause == BEFORE_SLEEP
        due_in = self._schedule.next(chance)
        if not isinstance(outcome, Done):
            written = await self._records.drop(snapshot, None if sleeps else due_in)
        else:
            written = await self._records.finish(
                snapshot,
                outcome.restic_id,
                outcome.bytes_added,
                outcome.bytes_total,
                None if sleeps else due_in,
                partial=outcome.partial,
            )
        self._failures.pop(user_id, None)
        if sleeps:
            self.forget(user_id)
        else:
            self._due(user_id, due_in)
        return bool(written)

    def _due(self, user_id: UserId, seconds: float) -> float:
        self.next[user_id] = self._clock.seconds() + seconds
        return seconds

    def _tell(self, snapshot: Snapshot, outcome: Outcome | None, seconds: float) -> None:
        if isinstance(outcome, Failed):
            _log.warn(
                "{user}: no snapshot ({cause}): {reason}",
                user=snapshot.user_id,
                cause=snapshot.cause,
                reason=outcome.reason,
            )
            self._record(snapshot, "snapshot-failed", {"reason": outcome.reason})
        elif isinstance(outcome, Done) and (outcome.partial or snapshot.cause != USUAL):
            detail: dict[str, object] = {
                "id": outcome.restic_id[:NAME_LENGTH],
                "bytes_added": outcome.bytes_added,
                "seconds": round(seconds, 1),
            }
            if outcome.partial:
                detail["partial"] = True
            self._record(snapshot, "snapshot", detail)

    def _record(self, snapshot: Snapshot, kind: str, detail: dict[str, object]) -> None:
        recording = self._directory.record(snapshot.user_id, kind, snapshot.cause, detail)
        Deferred.fromCoroutine(recording).addErrback(_not_recorded)


def _not_recorded(failure: Failure) -> None:
    failure.trap(DirectoryUnavailable, UnknownUser)  # type: ignore[no-untyped-call]
    _log.warn("a snapshot's event is not on record: {error}", error=failure.value)
