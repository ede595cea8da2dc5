"""What a wake asks of the directory's in-memory twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory._rows import check_changes
from matrix.directory.wakes import LATEST, Found, IWakes, read_past
from matrix.model import Event, Machine, MachineState, User, UserId, UserState


class _Twin(Protocol):
    async def user(self, user_id: UserId) -> User | None: ...

    async def machine(self, user_id: UserId) -> Machine | None: ...

    async def change(self, machine: Machine, **fields: object) -> Machine: ...

    async def events(self, user_id: UserId, limit: int = 50) -> Sequence[Event]: ...

    async def record(
        self, user_id: UserId, kind: str, cause: str, detail: Mapping[str, object] | None = None
    ) -> None: ...


def _may_be_claimed(
    user: User | None, machine: Machine | None, owner: object, now: datetime
) -> bool:
    if user is None or machine is None or machine.machine_id is None:
        return False
    if user.state is not UserState.ACTIVE or machine.state is not MachineState.SUSPENDED:
        return False
    until = machine.lease_expires_at
    return machine.lease_owner in (None, owner) or (until is not None and until <= now)


@implementer(IWakes)
class MemoryWakes:
    """Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(self, clock: IReactorTime, directory: _Twin) -> None:
        self._clock = clock
        self._directory = directory

    async def find(self, user_id: UserId, claim: Mapping[str, object] | None = None) -> Found:
        """See L{IWakes.find}."""
        twin = self._directory
        check_changes(claim or {})
        now = datetime.fromtimestamp(self._clock.seconds(), UTC)
        past = read_past(
            [
                (event.kind, event.cause, event.detail, (now - event.at).total_seconds())
                for event in await twin.events(user_id, LATEST)
            ]
        )
        user, machine = await twin.user(user_id), await twin.machine(user_id)
        claimed = claim is not None and _may_be_claimed(user, machine, claim["lease_owner"], now)
        if claimed and machine is not None and claim is not None:
            machine = await twin.change(machine, **claim)
        return Found(user, machine, past, claimed)

    async def change(
        self,
        machine: Machine,
        kind: str,
        cause: str,
        detail: Mapping[str, object],
        **fields: object,
    ) -> Machine:
        """See L{IWakes.change}."""
        changed = await self._directory.change(machine, **fields)
        await self._directory.record(machine.user_id, kind, cause, detail)
        return changed
