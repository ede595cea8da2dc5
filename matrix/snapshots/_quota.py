"""How much each repository may hold, counted by listing it and by what is uploaded meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from matrix.errors import InsufficientStorage
from matrix.snapshots.interfaces import IObjectStore

MEASURE_SECONDS = 600.0
"""Between two listings of a repository that is written to: other routers write to it too, and
what was deleted shows only there."""

REFUSE_SECONDS = 10.0
"""A figure older than this is taken anew before anybody is refused because of it: restic gives
up at once (507 is final for it)."""

ROOM_FOR_LOCKS = 16 << 20
"""Bytes beyond the quota, for locks alone: without one not even a restore can begin."""


@dataclass(slots=True)
class _Account:
    used: int
    """Bytes when measured, and those committed since."""
    measured_at: float
    reserved: int = 0
    """Bytes of uploads under way."""


class Quotas:
    """
    Watches over the sizes of repositories. Several routers count each for themselves, so a
    quota can be overshot by what the others took in between two listings.
    """

    def __init__(self, store: IObjectStore, limit: int | None, clock: IReactorTime) -> None:
        """@param limit: bytes for each repository; C{None} for no limit."""
        self._store = store
        self._limit = limit
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._measuring: dict[str, list[Deferred[_Account]]] = {}

    @asynccontextmanager
    async def reserved(self, root: str, length: int, extra: int = 0) -> AsyncIterator[None]:
        """
        While an upload is under way, its bytes count; if it succeeds, for good.

        @param root: what the keys of the repository begin with.
        @param extra: bytes beyond the quota that are still all right.
        @raise InsufficientStorage: there is no room for it.
        @raise matrix.snapshots.interfaces.StoreUnavailable: the repository cannot be measured.
        """
        if self._limit is None:
            yield
            return
        account = await self._account(root, MEASURE_SECONDS)
        limit = self._limit + extra
        if account.used + account.reserved + length > limit:
            account = await self._account(root, REFUSE_SECONDS)
        if account.used + account.reserved + length > limit:
            raise InsufficientStorage(
                f"this repository may hold {self._limit} bytes; it holds {account.used}, and "
                f"{account.reserved} are on their way",
                reason="quota",
            )
        account.reserved += length
        try:
            yield
            account.used += length
        finally:
            account.reserved -= length

    async def _account(self, root: str, fresh: float) -> _Account:
        """The repository's account, not older than so many seconds. Many ask, one measures."""
        account = self._accounts.get(root)
        if account is not None and self._clock.seconds() - account.measured_at < fresh:
            return account
        if root in self._measuring:
            waiting: Deferred[_Account] = Deferred()
            self._measuring[root].append(waiting)
            return await waiting
        self._measuring[root] = []
        measuring = Deferred.fromCoroutine(self._measure(root))
        result: Deferred[_Account] = Deferred()
        self._measuring[root].append(result)
        measuring.addBoth(self._tell, root)
        return await result

    def _tell(self, outcome: object, root: str) -> None:
        """Pass the outcome on to all who wait; those who left were cancelled, which is fine."""
        for waiting in self._measuring.pop(root):
            if not waiting.called:
                waiting.callback(outcome)  # type: ignore[arg-type]  # a Failure goes to errbacks

    async def _measure(self, root: str) -> _Account:
        used = 0
        async for page in self._store.list(root):
            used += sum(one.size for one in page)
        account = self._accounts.setdefault(root, _Account(0, 0.0))
        account.used, account.measured_at = used, self._clock.seconds()
        return account
