"""The upkeep of snapshots in the directory's in-memory twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory._upkeep_contract import Chore, Erasing, IUpkeep, Upkeep
from matrix.model import UserId

_NEVER = datetime.min.replace(tzinfo=UTC)


@implementer(IUpkeep)
class MemoryUpkeep:
    """Rows in a dictionary. Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(self, clock: IReactorTime, reach: Callable[[], None]) -> None:
        """
        @param reach: called first in each awaitable method; raises while there is an outage.
        """
        self._clock = clock
        self._reach = reach
        self._rows: dict[UserId, Upkeep] = {}
        self._due: dict[tuple[UserId, Chore], float] = {}
        self._leases: dict[UserId, tuple[str, float]] = {}

    # what triggers do in PostgreSQL

    def begin(self, user_id: UserId) -> None:
        """A machine's row was made."""
        self._rows.setdefault(user_id, Upkeep(user_id))

    def deleted(self, user_id: UserId, deleted: bool) -> None:
        """
        A user was deleted, or let in again.

        @raise Erasing: it is too late for that.
        """
        row = self._rows.get(user_id, Upkeep(user_id))
        if deleted:
            self._rows[user_id] = replace(row, deleted_at=self._now())
        elif row.erasing_at is not None:
            raise Erasing(f"the data of user {user_id} are being erased since {row.erasing_at}")
        elif user_id in self._rows:
            self._rows[user_id] = replace(row, deleted_at=None)

    # IUpkeep

    async def find(self, user_id: UserId) -> Upkeep | None:
        """See L{IUpkeep.find}."""
        self._reach()
        return self._rows.get(user_id)

    async def claim(
        self, chore: Chore, owner: str, lease: float, spell: float = 0.0
    ) -> Upkeep | None:
        """See L{IUpkeep.claim}."""
        self._reach()
        now = self._clock.seconds()
        due = [row for row in self._rows.values() if self._is_due(row, chore, spell)]
        if not due:
            return None
        row = min(due, key=lambda one: self._order(one, chore))
        self._leases[row.user_id] = owner, now + lease
        if chore is Chore.ERASE and row.erasing_at is None:
            row = self._rows[row.user_id] = replace(row, erasing_at=self._now())
        return row

    async def hold(self, user_id: UserId, owner: str, lease: float) -> bool:
        """See L{IUpkeep.hold}."""
        self._reach()
        if self._leases.get(user_id, ("", 0.0))[0] != owner:
            return False
        self._leases[user_id] = owner, self._clock.seconds() + lease
        return True

    async def done(
        self,
        user_id: UserId,
        owner: str,
        chore: Chore,
        again: float,
        facts: Mapping[str, Any],
    ) -> bool:
        """See L{IUpkeep.done}."""
        self._reach()
        row, now = self._rows[user_id], self._now()
        changes: dict[str, Any] = {}
        if row.trouble_of in (None, chore):
            changes = {"trouble": None, "trouble_of": None, "failures": 0}
        match chore:
            case Chore.THIN:
                changes["mark"] = facts["mark"]
                if facts["mark"]:
                    changes["thinned_at"] = now
            case Chore.SCRUB:
                changes["scrubbed_at"] = now
            case Chore.DRILL:
                changes |= {"drilled_at": now, **facts}
            case Chore.ERASE if facts["erased"]:
                changes["erased_at"] = now
        return self._end(replace(row, **changes), owner, chore, again)

    async def failed(
        self, user_id: UserId, owner: str, chore: Chore, again: float, why: str
    ) -> bool:
        """See L{IUpkeep.failed}."""
        self._reach()
        row = self._rows[user_id]
        failures = row.failures + 1 if row.trouble_of == chore else 1
        row = replace(row, trouble=why, trouble_of=chore.value, failures=failures)
        return self._end(self._held(row, chore), owner, chore, again)

    async def put_off(self, user_id: UserId, owner: str, chore: Chore, again: float) -> bool:
        """See L{IUpkeep.put_off}."""
        self._reach()
        return self._end(self._held(self._rows[user_id], chore), owner, chore, again)

    async def want(self, user_id: UserId, snapshot: str | None) -> None:
        """See L{IUpkeep.want}."""
        self._reach()
        row = self._rows.get(user_id, Upkeep(user_id))
        self._rows[user_id] = replace(row, wanted=snapshot, wanted_at=self._now())

    async def troubled(self, limit: int = 100) -> Sequence[Upkeep]:
        """See L{IUpkeep.troubled}."""
        self._reach()
        found = [row for row in self._rows.values() if row.trouble is not None]
        return sorted(found, key=lambda row: (-row.failures, row.user_id))[:limit]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.seconds(), UTC)

    def _is_due(self, row: Upkeep, chore: Chore, spell: float) -> bool:
        now = self._clock.seconds()
        if self._leases.get(row.user_id, ("", now))[1] > now:
            return False
        if self._due.get((row.user_id, chore), now) > now:
            return False
        if chore is Chore.ERASE:
            deleted = row.deleted_at
            return (
                deleted is not None and row.erased_at is None and deleted.timestamp() <= now - spell
            )
        if row.deleted_at is not None:
            return False
        if chore is Chore.DRILL:
            drills = [one.drilled_at for one in self._rows.values() if one.drilled_at is not None]
            held = max(drills, default=_NEVER)
            recent = held is not _NEVER and held.timestamp() > now - spell
            return row.thinned_at is not None and not recent
        return True

    def _order(self, row: Upkeep, chore: Chore) -> float:
        if chore is Chore.DRILL:
            return 0.0 if row.drilled_at is None else row.drilled_at.timestamp()
        if chore is Chore.ERASE and row.deleted_at is not None:
            return row.deleted_at.timestamp()
        return self._due.get((row.user_id, chore), 0.0)

    def _held(self, row: Upkeep, chore: Chore) -> Upkeep:
        if chore is not Chore.DRILL:
            return row
        return replace(row, drilled_at=self._now(), drill_seconds=None, drill_bytes=None)

    def _end(self, row: Upkeep, owner: str, chore: Chore, again: float) -> bool:
        if self._leases.get(row.user_id, ("", 0.0))[0] != owner:
            return False
        del self._leases[row.user_id]
        self._rows[row.user_id] = row
        if chore is not Chore.DRILL:
            self._due[row.user_id, chore] = self._clock.seconds() + again
        return True
