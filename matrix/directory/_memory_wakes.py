"""What a wake asks of the directory's in-memory twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory.wakes import LATEST, Found, IWakes, read_past
from matrix.model import Event, Machine, User, UserId


class _Twin(Protocol):
    async def user(self, user_id: UserId) -> User | None: ...

    async def machine(self, user_id: UserId) -> Machine | None: ...

    async def change(self, machine: Machine, **fields: object) -> Machine: ...

    async def events(self, user_id: UserId, limit: int = 50) -> Sequence[Event]: ...

    async def record(
        self, user_id: UserId, kind: str, cause: str, detail: Mapping[str, object] | None = None
    ) -> None: ...


@implementer(IWakes)
class MemoryWakes:
    """Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(self, clock: IReactorTime, directory: _Twin) -> None:
        self._clock = clock
        self._directory = directory

    async def find(self, user_id: UserId) -> Found:
        """See L{IWakes.find}."""
        twin = self._directory
        now = datetime.fromtimestamp(self._clock.seconds(), UTC)
        past = read_past(
            [
                (event.kind, event.cause, event.detail, (now - event.at).total_seconds())
                for event in await twin.events(user_id, LATEST)
            ]
        )
        return Found(await twin.user(user_id), await twin.machine(user_id), past)

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
