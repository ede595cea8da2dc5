"""The snapshots of the directory's in-memory twin."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory._isnapshots import ISnapshots
from matrix.directory.interfaces import UnknownUser
from matrix.model import Snapshot, SnapshotStatus, Standing, User, UserId

YOUNG = timedelta(hours=1)
"""See L{ISnapshots.keep_only}."""


@implementer(ISnapshots)
class MemorySnapshots:
    """Snapshots in a list. Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(
        self, clock: IReactorTime, reach: Callable[[], None], users: Mapping[UserId, User]
    ) -> None:
        """
        @param reach: called first in each awaitable method; raises while there is an outage.
        @param users: those who were admitted.
        """
        self._clock = clock
        self._reach = reach
        self._users = users
        self._rows: dict[int, Snapshot] = {}
        self._times: dict[UserId, Standing] = {}
        self._last = 0

    async def enroll(self, due_in: Mapping[UserId, float]) -> None:
        """See L{ISnapshots.enroll}."""
        self._reach()
        for user_id, seconds in due_in.items():
            known = self._times.get(user_id) or Standing(user_id, "", None, 0)
            if user_id in self._users and known.due_at is None:
                self._times[user_id] = replace(known, due_at=self._in(seconds))

    async def claim(
        self, user_ids: Collection[UserId], cause: str, owner: str, lease: float, limit: int
    ) -> Sequence[Snapshot]:
        """See L{ISnapshots.claim}."""
        self._reach()
        due = [
            (one.due_at, user_id)
            for user_id, one in self._times.items()
            if user_id in user_ids
            and one.due_at is not None
            and one.due_at <= self._in(0)
            and self._started(user_id) is None
        ]
        chosen = sorted(due)[: max(limit, 0)]
        return [self._begin(user_id, cause, owner, lease) for _, user_id in chosen]

    async def begin(self, user_id: UserId, cause: str, owner: str, lease: float) -> Snapshot | None:
        """See L{ISnapshots.begin}."""
        self._reach()
        if user_id not in self._users:
            raise UnknownUser(f"there is no user {user_id}: admit them first")
        if self._started(user_id) is not None:
            return None
        return self._begin(user_id, cause, owner, lease)

    async def under_way(self, user_id: UserId) -> Snapshot | None:
        """See L{ISnapshots.under_way}."""
        self._reach()
        return self._started(user_id)

    async def prolong(self, snapshot: Snapshot, lease: float) -> bool:
        """See L{ISnapshots.prolong}."""
        self._reach()
        found = self._ours(snapshot)
        if found is not None:
            self._rows[found.id] = replace(found, lease_expires_at=self._in(lease))
        return found is not None

    async def finish(
        self,
        snapshot: Snapshot,
        restic_id: str,
        bytes_added: int,
        bytes_total: int,
        due_in: float | None,
        *,
        partial: bool = False,
    ) -> bool:
        """See L{ISnapshots.finish}."""
        self._reach()
        found = self._end(snapshot, SnapshotStatus.DONE)
        if found is None:
            return False
        self._rows[found.id] = replace(
            found,
            restic_id=restic_id,
            bytes_added=bytes_added,
            bytes_total=bytes_total,
            partial=partial,
        )
        self._settle(found.user_id, due_in, 0)
        return True

    async def drop(self, snapshot: Snapshot, due_in: float | None) -> bool:
        """See L{ISnapshots.drop}."""
        self._reach()
        if self._ours(snapshot) is None:
            return False
        del self._rows[snapshot.id]
        self._settle(snapshot.user_id, due_in, 0)
        return True

    async def fail(self, snapshot: Snapshot, reason: str, due_in: float) -> bool:
        """See L{ISnapshots.fail}."""
        self._reach()
        found = self._end(snapshot, SnapshotStatus.FAILED)
        if found is None:
            return False
        self._rows[found.id] = replace(found, reason=reason)
        before = self._times.get(found.user_id)
        self._settle(found.user_id, due_in, 1 if before is None else before.failures + 1)
        return True

    async def take_over(self, owner: str, lease: float, limit: int) -> Sequence[Snapshot]:
        """See L{ISnapshots.take_over}."""
        self._reach()
        abandoned = [
            row
            for row in self._rows.values()
            if row.lease_expires_at is not None and row.lease_expires_at <= self._in(0)
        ]
        taken = [
            replace(row, lease_owner=owner, lease_expires_at=self._in(lease))
            for row in abandoned[:limit]
        ]
        self._rows.update({row.id: row for row in taken})
        return taken

    async def of_user(self, user_id: UserId, limit: int = 50) -> Sequence[Snapshot]:
        """See L{ISnapshots.of_user}."""
        self._reach()
        return self._of(user_id)[:limit]

    async def newest(self, user_id: UserId) -> Snapshot | None:
        """See L{ISnapshots.newest}."""
        self._reach()
        return self._newest(user_id, SnapshotStatus.DONE)

    async def standings(self, limit: int = 1000) -> Sequence[Standing]:
        """See L{ISnapshots.standings}."""
        self._reach()
        standings = [self._standing(one) for one in self._times.values()]
        return sorted(standings, key=_by_trouble)[:limit]

    async def failing(self) -> int:
        """See L{ISnapshots.failing}."""
        self._reach()
        return sum(one.failures > 0 for one in self._times.values())

    async def verified(self, user_id: UserId, restic_ids: Collection[str]) -> None:
        """See L{ISnapshots.verified}."""
        self._reach()
        for row in self._of(user_id):
            if row.status is SnapshotStatus.DONE and row.restic_id in restic_ids:
                self._rows[row.id] = replace(row, verified_at=self._in(0))

    async def keep_only(self, user_id: UserId, restic_ids: Collection[str]) -> int:
        """See L{ISnapshots.keep_only}."""
        self._reach()
        return self._forget(
            row
            for row in self._of(user_id)
            if row.restic_id is not None
            and row.restic_id not in restic_ids
            and row.finished_at is not None
            and row.finished_at < self._in(0) - YOUNG
        )

    async def purge(self, older: float) -> int:
        """See L{ISnapshots.purge}."""
        self._reach()
        return self._forget(
            row
            for row in [*self._rows.values()]
            if row.status is SnapshotStatus.FAILED
            and row.finished_at is not None
            and row.finished_at <= self._in(-older)
        )

    def _in(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self._clock.seconds() + seconds, UTC)

    def _of(self, user_id: UserId) -> list[Snapshot]:
        """A user's, newest first."""
        return [row for row in reversed(self._rows.values()) if row.user_id == user_id]

    def _newest(self, user_id: UserId, status: SnapshotStatus) -> Snapshot | None:
        return next((row for row in self._of(user_id) if row.status is status), None)

    def _started(self, user_id: UserId) -> Snapshot | None:
        return self._newest(user_id, SnapshotStatus.STARTED)

    def _ours(self, snapshot: Snapshot) -> Snapshot | None:
        found = self._rows.get(snapshot.id)
        ours = (SnapshotStatus.STARTED, snapshot.lease_owner)
        return found if found is not None and (found.status, found.lease_owner) == ours else None

    def _begin(self, user_id: UserId, cause: str, owner: str, lease: float) -> Snapshot:
        self._last += 1
        self._rows[self._last] = begun = Snapshot(
            self._last,
            user_id,
            cause,
            SnapshotStatus.STARTED,
            self._in(0),
            lease_owner=owner,
            lease_expires_at=self._in(lease),
        )
        return begun

    def _end(self, snapshot: Snapshot, status: SnapshotStatus) -> Snapshot | None:
        found = self._ours(snapshot)
        if found is None:
            return None
        return replace(
            found,
            status=status,
            finished_at=self._in(0),
            lease_owner=None,
            lease_expires_at=None,
        )

    def _settle(self, user_id: UserId, due_in: float | None, failures: int) -> None:
        due_at = None if due_in is None else self._in(due_in)
        self._times[user_id] = Standing(user_id, "", due_at, failures)

    def _standing(self, one: Standing) -> Standing:
        failed = self._newest(one.user_id, SnapshotStatus.FAILED)
        reason = failed.reason if failed is not None and one.failures else None
        newest = self._newest(one.user_id, SnapshotStatus.DONE)
        email = self._users[one.user_id].email
        return replace(one, email=email, newest=newest, reason=reason)

    def _forget(self, rows: Iterable[Snapshot]) -> int:
        ids = [row.id for row in rows]
        for one in ids:
            del self._rows[one]
        return len(ids)


def _by_trouble(one: Standing) -> tuple[int, float, UserId]:
    """Failing ones first, then those without any, then those whose newest is oldest."""
    finished = one.newest.finished_at if one.newest is not None else None
    return -one.failures, -math.inf if finished is None else finished.timestamp(), one.user_id
