"""When the box thins out, checks and tries users' snapshots, and erases those of the deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.directory import Chore, DirectoryUnavailable, IDirectory, StaleRow, UnknownUser, Upkeep
from matrix.machines import ProviderError
from matrix.metrics import Registry, series
from matrix.model import UserId
from matrix.router.idle import Periodic
from matrix.snapshots import Damaged, Keeper, RepositoryBusy, ResticFailed, StoreUnavailable

ROUND_SECONDS = 60.0
"""Between two looks whether anything is due."""
LEASE_SECONDS = 120.0
"""For how long a box that died keeps others from a user it had in hand."""
HOLD_SECONDS = 30.0
"""Between two signs of life while one is in hand."""

DAY = 86400.0
THIN_AGAIN = 0.8 * DAY
"""Seconds: once in each night, also if that comes a little earlier."""
ERASE_AGAIN = 3600.0
"""Seconds after which what was erased is looked at again, until nothing is found: by then each
upload that was under way has ended."""
BUSY_AGAIN = 900.0
"""Seconds after which a repository is tried again in which somebody works."""
FAILED_AGAIN = 900.0
"""Seconds, doubled with each failure in a row up to a day."""
LONGEST_SECONDS = 6 * 3600.0
"""For one thing with one user: a terabyte at 50 MB/s."""
MOST_SNAPSHOTS = 10_000
"""Of one user, with failed attempts: a day has 288 of them, and few are kept for longer."""
SETTLED = "upkeep"
"""What C{events} call it, with the chore as the cause."""

_log = Logger()

_FORESEEN = (ResticFailed, Damaged, StoreUnavailable, ProviderError, OSError, TimeoutError)


class NotNow(Exception):
    """Somebody else has the machine in hand."""


@dataclass(frozen=True, slots=True)
class Window:
    """Part of a day (UTC), by the hour; C{None} for none of it."""

    hours: tuple[int, int] | None

    def holds(self, at: datetime) -> bool:
        """Whether this moment is within it; it may go on past midnight."""
        if self.hours is None:
            return False
        first, last = self.hours
        return first <= at.hour < last if first < last else at.hour >= first or at.hour < last


@dataclass(frozen=True, slots=True)
class Times:
    """How often things are done."""

    window: Window
    scrub: float
    """Seconds within which every repository is checked once."""
    drill: float
    """Seconds between two drills."""
    grace: float
    """Seconds between a user's deletion and that of their data."""


class Caretaker:
    """
    Does what is due, one user at a time, from L{start} to L{stop}.

    Any number of boxes may: users are claimed in the directory. Deleted users' data go at any
    hour, the rest is done off-peak.
    """

    def __init__(
        self,
        clock: IReactorTime,
        directory: IDirectory,
        keeper: Keeper,
        farewell: Callable[[UserId], Awaitable[bool]],
        owner: str,
        times: Times,
        registry: Registry,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        @param farewell: destroys a deleted user's machine; whether there is none any more.
        @param owner: names this process in leases.
        """
        self._clock = clock
        self._directory = directory
        self._keeper = keeper
        self._farewell = farewell
        self._owner = owner
        self._times = times
        self._registry = registry
        self._now = now
        self._rounds = Periodic(clock, ROUND_SECONDS, self.round)
        self._work: Deferred[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin."""
        self._rounds.start(now=True)

    def stop(self) -> None:
        """Do nothing more; what is under way is broken off, and done another time."""
        self._stopped = True
        self._rounds.stop()
        if self._work is not None:
            self._work.cancel()

    async def round(self) -> None:
        """
        Do all that is due now.

        @raise DirectoryUnavailable: that cannot be told now.
        """
        while not self._stopped and await self._next():
            pass
        troubled = await self._directory.upkeep.troubled()
        self._registry.gauge(series.UPKEEP_TROUBLED).value = len(troubled)

    async def _next(self) -> bool:
        """Do one thing that is due; whether there was one."""
        times, upkeep = self._times, self._directory.upkeep
        within = times.window.holds(self._now())
        for chore, spell in (
            (Chore.ERASE, times.grace),
            (Chore.DRILL, times.drill),
            (Chore.THIN, 0.0),
            (Chore.SCRUB, 0.0),
        ):
            if within or chore is Chore.ERASE:
                row = await upkeep.claim(chore, self._owner, LEASE_SECONDS, spell)
                if row is not None:
                    await self._do(chore, row)
                    return True
        return False

    async def _do(self, chore: Chore, row: Upkeep) -> None:
        """One chore for a user who was claimed, whatever comes of it."""
        self._work = work = Deferred.fromCoroutine(self._carry_out(chore, row))
        holding = Periodic(self._clock, HOLD_SECONDS, lambda: self._hold(row.user_id, work))
        holding.start()
        work.addErrback(_broken_off)
        try:
            await work
        finally:
            holding.stop()
            self._work = None

    async def _hold(self, user_id: UserId, work: Deferred[None]) -> None:
        if not await self._directory.upkeep.hold(user_id, self._owner, LEASE_SECONDS):
            work.cancel()  # another box thinks that we have died, and goes on in our place

    async def _carry_out(self, chore: Chore, row: Upkeep) -> None:
        user_id, upkeep = row.user_id, self._directory.upkeep
        began = self._clock.seconds()
        carry_out = {
            Chore.THIN: self._thin,
            Chore.SCRUB: self._scrub,
            Chore.DRILL: self._drill,
            Chore.ERASE: self._erase,
        }[chore]
        outcome = "done"
        try:
            working = Deferred.fromCoroutine(carry_out(row))
            again, facts, detail = await working.addTimeout(LONGEST_SECONDS, self._clock)
        except (CancelledError, DirectoryUnavailable):
            raise
        except (RepositoryBusy, NotNow, StaleRow):
            outcome = "busy"
            await upkeep.put_off(user_id, self._owner, chore, BUSY_AGAIN)
        except Exception as error:  # noqa: BLE001 -- one user's must not keep all others waiting
            outcome = "failed"
            await self._note_failure(chore, row, error)
        else:
            await upkeep.done(user_id, self._owner, chore, again, facts)
            if detail is None:
                outcome = "nothing"
            else:
                seconds = round(self._clock.seconds() - began, 1)
                await self._record(user_id, chore.value, {**detail, "seconds": seconds})
        self._registry.counter(series.UPKEEP, chore.value, outcome).value += 1

    async def _note_failure(self, chore: Chore, row: Upkeep, error: Exception) -> None:
        why = f"it took longer than {LONGEST_SECONDS / 3600:g} h" if _is_late(error) else str(error)
        if isinstance(error, _FORESEEN):
            _log.error(
                "keeping.failed: {chore} of {user}: {why}", chore=chore, user=row.user_id, why=why
            )
        else:
            _log.failure("keeping.failed: {chore} of {user}", chore=chore, user=row.user_id)
        before = row.failures if row.trouble_of == chore else 0
        again = min(FAILED_AGAIN * 2.0**before, DAY)
        told = f"{chore}: {why or type(error).__name__}"
        await self._directory.upkeep.failed(row.user_id, self._owner, chore, again, told)
        await self._record(row.user_id, f"{chore}-failed", {"reason": why})

    # Each gives: when again, what is kept in the row, and what is told of it (None: nothing).

    async def _thin(self, row: Upkeep) -> _Came:
        user_id, snapshots = row.user_id, self._directory.snapshots
        known = await snapshots.of_user(user_id, MOST_SNAPSHOTS)
        noted = {one.restic_id: one.started_at for one in known if one.restic_id is not None}
        thinned = await self._keeper.thin(user_id, row.mark, noted)
        if not thinned.mark and noted:
            raise ResticFailed(f"{len(noted)} snapshots were taken, and there is no repository")
        await snapshots.keep_only(user_id, thinned.kept)
        told = {"kept": len(thinned.kept), "gone": thinned.gone} if thinned.gone else None
        return THIN_AGAIN, {"mark": thinned.mark}, told

    async def _scrub(self, row: Upkeep) -> _Came:
        # A little earlier than in a week, for it is done at night only.
        again = max(self._times.scrub - DAY / 2, DAY / 2)
        scrubbed = await self._keeper.scrub(row.user_id)
        if scrubbed is None:
            return again, {}, None
        await self._directory.snapshots.verified(row.user_id, scrubbed.snapshots)
        return again, {}, {"files": scrubbed.files, "bytes": scrubbed.bytes}

    async def _drill(self, row: Upkeep) -> _Came:
        drilled = await self._keeper.drill(row.user_id)
        if drilled is None:
            return 0.0, {"drill_seconds": None, "drill_bytes": None}, None
        await self._directory.snapshots.verified(row.user_id, (drilled.snapshot,))
        self._registry.gauge(series.DRILL_SECONDS).value = drilled.seconds
        self._registry.gauge(series.DRILL_BYTES).value = drilled.bytes
        facts = {"drill_seconds": drilled.seconds, "drill_bytes": drilled.bytes}
        return 0.0, facts, {**asdict(drilled), "restore_s": round(drilled.seconds, 1)}

    async def _erase(self, row: Upkeep) -> _Came:
        if not await self._farewell(row.user_id):
            raise NotNow
        objects = await self._keeper.erase(row.user_id)
        told = {"objects": objects} if objects else None
        return ERASE_AGAIN, {"erased": not objects}, told

    async def _record(self, user_id: UserId, cause: str, detail: Mapping[str, object]) -> None:
        with suppress(UnknownUser):  # an operator has removed the row
            await self._directory.record(user_id, SETTLED, cause, detail)


_Came = tuple[float, Mapping[str, object], Mapping[str, object] | None]


def _is_late(error: Exception) -> bool:
    return isinstance(error, TimeoutError)


def _broken_off(failure: Failure) -> None:
    """The lease ends by itself, and somebody goes on."""
    failure.trap(CancelledError, DirectoryUnavailable)  # type: ignore[no-untyped-call]
    _log.info("keeping.broken-off: {error}", error=failure.value or "the router is stopping")
