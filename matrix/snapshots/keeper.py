"""What the box does with one user's repository: thins it out, checks it, tries it, erases it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from matrix.errors import NotFound
from matrix.model import UserId
from matrix.snapshots._drill import Drill, Drilled, scratch_folder
from matrix.snapshots._places import Keys, Kind, name_of
from matrix.snapshots.interfaces import IObjectStore, Stored, StoreUnavailable, WrongContent
from matrix.snapshots.restic import Desk, Restic
from matrix.snapshots.retention import Rules, Taken, surplus
from matrix.snapshots.shelf import Dated

BATCH = 200
"""Snapshots that one run of restic forgets: their ids are on its command line."""

CHUNK = 512 * 1024
"""Bytes read at once while everything is checked."""

AT_ONCE = 8
"""Objects deleted at once: half of the store's threads."""

TOLD = 5
"""Damaged objects that are named; there may be thousands."""

_log = Logger()


class Damaged(Exception):
    """Stored bytes are not those that were stored; the text says which, for the operator."""


@dataclass(frozen=True, slots=True)
class Thinned:
    """What came of thinning out."""

    kept: frozenset[str]
    """The ids of the snapshots that there are now."""
    gone: int
    mark: str
    """Of what there is now; empty if there is no repository."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """All is right."""

    files: int
    bytes: int
    snapshots: tuple[str, ...]
    """Their ids: they are verified."""


class Keeper:
    """Works on one repository at a time; who may, and when, is others' affair."""

    def __init__(
        self,
        reactor: Any,
        store: IObjectStore,
        desk: Desk,
        password: Callable[[UserId], str],
        rules: Rules,
    ) -> None:
        """
        @param reactor: IReactorTime, IReactorFDSet, IReactorThreads.
        @param store: with a key that may delete.
        @param password: what a user's repository is encrypted with.
        """
        self._reactor: IReactorTime = reactor
        self._store = store
        self._desk = desk
        self._password = password
        self._rules = rules

    def restic(self, user_id: UserId) -> Restic:
        """The program for a user's repository."""
        return Restic(self._reactor, self._desk, user_id, self._password(user_id))

    async def snapshots(self, user_id: UserId) -> list[Dated]:
        """
        Those that there are, by their machine's word.

        @raise ResticFailed: that cannot be seen; also if there is no repository.
        """
        listed = await self.restic(user_id).read("snapshots", "--no-lock")
        return [Dated(one["id"], datetime.fromisoformat(one["time"])) for one in listed]

    # thinning out

    async def thin(
        self, user_id: UserId, mark: str | None, noted: Mapping[str, datetime]
    ) -> Thinned:
        """
        Let old snapshots go, and what only they needed.

        @param mark: what this gave the last time: if nothing came since, nothing is done.
        @param noted: when which snapshot was taken, as far as we know it ourselves.
        @raise RepositoryBusy: not now.
        @raise ResticFailed: it could not be done.
        @raise StoreUnavailable: nor could this.
        """
        keys = Keys(self._desk.prefix, user_id)
        present = await self._snapshots(keys)
        if present is None:
            return Thinned(frozenset(), 0, "")
        if mark == _mark(present) or not present:
            return Thinned(frozenset(present), 0, _mark(present))
        restic = self.restic(user_id)
        await self._unlock(keys, restic)
        said = await restic.read("snapshots")
        taken = [
            Taken(one["id"], datetime.fromisoformat(one["time"]), noted.get(one["id"]))
            for one in said
        ]
        gone = surplus(taken, self._rules, datetime.now(UTC))
        for start in range(0, len(gone), BATCH):
            await restic.run("forget", *gone[start : start + BATCH])
        if gone or mark is None:
            await restic.run("prune")
        left = await self._snapshots(keys) or []
        return Thinned(frozenset(left), len(gone), _mark(left))

    async def _snapshots(self, keys: Keys) -> list[str] | None:
        """The names of all snapshots; C{None} if there is no repository."""
        if await self._store.size(keys.config) is None:
            return None
        return [name async for name, _ in self._files(keys.folder(Kind.SNAPSHOTS))]

    async def _unlock(self, keys: Keys, restic: Restic) -> None:
        """Remove the locks of those that were killed: restic knows them by their age."""
        async for _ in self._files(keys.folder(Kind.LOCKS)):
            await restic.run("unlock")
            return

    async def _files(self, prefix: str) -> Any:
        async for page in self._store.list(prefix):
            for one in page:
                if (name := name_of(one.key)) is not None:
                    yield name, one

    # checking

    async def scrub(self, user_id: UserId) -> Scrubbed | None:
        """
        Read everything, and compare each file with its name, then see that what refers to
        each other is there. C{None} if there is no repository.

        @raise Damaged: something is not as it was stored.
        @raise ResticFailed: what is there does not fit together, or cannot be opened.
        @raise StoreUnavailable: it could not be read.
        """
        keys = Keys(self._desk.prefix, user_id)
        snapshots = await self._snapshots(keys)
        if snapshots is None:
            return None
        files, size, damaged = 0, 0, []
        for kind in (Kind.KEYS, Kind.SNAPSHOTS, Kind.INDEX, Kind.DATA):
            async for name, one in self._files(keys.folder(kind)):
                if not await self._is_right(name, one):
                    damaged.append(one.key)
                files, size = files + 1, size + one.size
        if damaged:
            raise Damaged(
                f"{len(damaged)} of {files} files are damaged: {', '.join(damaged[:TOLD])}"
                f"{', …' if len(damaged) > TOLD else ''}; see docs/snapshots.md"
            )
        if snapshots:
            # Without a lock: we alone take things away, and a backup only adds.
            await self.restic(user_id).run("check", "--no-lock")
        return Scrubbed(files, size, tuple(snapshots))

    async def _is_right(self, name: str, one: Stored) -> bool:
        """Whether an object's bytes are those of its name; one that is gone is not wrong."""
        try:
            reading = await self._store.read(one.key)
        except NotFound:
            return True  # pruned meanwhile, or a backup's that was taken back
        checking = self._store.check(reading.size, name)
        try:
            while chunk := await reading.read(CHUNK):
                await checking.write([chunk])
            await checking.commit()
        except WrongContent as error:
            _log.error("snapshots.damaged: {key}: {error}", key=one.key, error=error)
            return False
        finally:
            checking.abort()
            reading.close()
        return True

    # trying

    async def drill(self, user_id: UserId) -> Drilled | None:
        """
        Restore the newest snapshot and look at what comes. C{None} if there is none.

        @raise ResticFailed: nothing came, or it is not what was stored.
        """
        if not await self._snapshots(Keys(self._desk.prefix, user_id)):
            return None
        folder = scratch_folder()
        try:
            return await Drill(self._reactor, self.restic(user_id), folder / "restored").run()
        finally:
            folder.rmdir()  # it is empty: what was restored is gone

    # erasing

    async def erase(self, user_id: UserId) -> int:
        """
        Delete all that is stored of a user.

        @return: how many objects there were.
        @raise StoreUnavailable: some may be there still.
        """
        root = Keys(self._desk.prefix, user_id).root
        count = 0
        async for page in self._store.list(root):
            for start in range(0, len(page), AT_ONCE):
                deletions = [
                    Deferred.fromCoroutine(_delete(self._store, one.key))
                    for one in page[start : start + AT_ONCE]
                ]
                await gatherResults(deletions, consumeErrors=True).addErrback(_first)
            count += len(page)
        return count


async def _delete(store: IObjectStore, key: str) -> None:
    await store.delete(key)


def _first(failure: Any) -> None:
    """The first that failed stands for all."""
    error = failure.value.subFailure.value
    raise error if isinstance(error, Exception) else StoreUnavailable("deleting failed")


def _mark(names: list[str]) -> str:
    return hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()
