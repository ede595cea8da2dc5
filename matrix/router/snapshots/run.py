"""One snapshot being taken: from its row in the directory to what is written there in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.directory import DirectoryUnavailable, ISnapshots
from matrix.model import Machine, Snapshot, UserId
from matrix.router.snapshots.daemon import Daemons, NoAnswer, NotOffered, Place, UnderWay
from matrix.router.snapshots.report import Done, Failed, Outcome, Progress, Unchanged

LEASE = 60.0
"""Seconds after which another router may close what one that died has begun."""

PROLONG_INTERVAL = 15.0
"""Seconds: three of them may fail before the lease expires."""

FOLLOW_INTERVAL = 1.0
"""Seconds between two looks at a snapshot that somebody else has the machine take."""

LOOKS = 10
"""As often a machine that broke off is asked what became of it before it is given up."""

TURNS = 5
"""As often a machine is asked that takes one for somebody else each time."""

RECORD_TRIES = 20
"""As often something is written down that the directory cannot take at the moment; after that
whoever takes the row over asks the machine."""

RECENT = 50
"""Snapshots of a user among which one is looked for that a machine tells of."""

Listener = Callable[[Progress], None]

_T = TypeVar("_T")
_log = Logger()


class Run:
    """Has one machine take one snapshot. Who waits for it may leave: it goes on."""

    def __init__(
        self,
        clock: IReactorTime,
        records: ISnapshots,
        daemons: Daemons,
        snapshot: Snapshot,
        machine: Machine,
        place: Place,
        turns: DeferredSemaphore,
    ) -> None:
        """
        @param snapshot: its row, ours.
        @param turns: how many may go on at a time.
        """
        self.snapshot = snapshot
        self.boot_id = machine.boot_id
        self.place = place
        self.progress: Progress | None = None
        self.listeners: dict[Listener, None] = {}
        """Who is told how far it is."""
        self.given_up: str | None = None
        """Why we wait for the machine no longer, if so."""
        self.adopted = False
        """Whether what came of it was begun for somebody else, before it."""
        self.turn_at: float | None = None
        """When its turn came, in the clock's seconds."""
        self._clock = clock
        self._records = records
        self._daemons = daemons
        self._turns = turns
        self._taking: Deferred[Outcome] | None = None

    @property
    def user_id(self) -> UserId:
        return self.snapshot.user_id

    async def take(self, *, needed: bool = False) -> Outcome | None:
        """
        What became of it; C{None} if it is no concern of the machine's, which takes none.

        @param needed: whether it is taken though nothing has changed.
        """
        return await self._held(lambda: self._take(needed))

    async def look(self) -> Outcome | None:
        """As L{take}, of one that another router had begun before it ended."""
        return await self._held(lambda: self._find_out("its router ended before it was done"))

    def give_up(self, why: str) -> None:
        """Wait for the machine no longer; what it has begun it may finish all the same."""
        if self._taking is not None and self.given_up is None:
            self.given_up = why
            self._taking.cancel()

    async def _held(self, work: Callable[[], Awaitable[Outcome]]) -> Outcome | None:
        """Do it when it is its turn, and meanwhile prolong the lease."""

        async def working() -> Outcome:
            await self._turns.acquire()
            self.turn_at = self._clock.seconds()
            try:
                return await work()
            finally:
                self._turns.release()

        prolonging = LoopingCall(self._prolong)
        prolonging.clock = self._clock
        prolonging.start(PROLONG_INTERVAL, now=False)
        self._taking = taking = Deferred.fromCoroutine(working())
        try:
            return await taking
        except NotOffered:
            return None
        except Exception as error:
            if self.given_up is None:
                raise
            _log.debug("given up: {error!r}", error=error)
            return Failed(self.given_up)
        finally:
            self._taking = None
            prolonging.stop()

    async def _take(self, needed: bool) -> Outcome:
        cause = self.snapshot.cause
        for _ in range(TURNS):
            try:
                outcome = await self._daemons.take(self.place, cause, self._told, needed=needed)
                if not isinstance(outcome, Unchanged):
                    return outcome
                missed = await self._missed(outcome)
                if missed is not None:
                    return missed
                needed = True
            except NoAnswer as error:
                return await self._find_out(str(error))
            except UnderWay:
                # Of a router that ended, perhaps: if nobody has it on record it is ours.
                found = await self._find_out("")
                if isinstance(found, Done):
                    self.adopted = True
                    return found
        return Failed("the machine takes one snapshot after the other for somebody else")

    async def _find_out(self, why: str) -> Outcome:
        """
        What becomes, or became, of a snapshot that we do not hear of.

        @param why: what is said of it if nobody knows.
        """
        looks = 0
        while True:
            try:
                memory = await self._daemons.memory(self.place)
            except NoAnswer as error:
                looks += 1
                if looks >= LOOKS:
                    return Failed(why or str(error))
            else:
                if not memory.running:
                    return await self._news(memory.last) or Failed(why)
                looks = 0
            await deferLater(self._clock, FOLLOW_INTERVAL)

    async def _missed(self, outcome: Unchanged) -> Outcome | None:
        """
        What is to be written down though nothing has changed: the machine may have finished one
        that we had given up, or that a router did not live to hear of. C{None}: there is none on
        record at all, and so one must be taken.
        """
        if outcome.last is not None:
            return await self._news(outcome.last) or outcome
        newest = await patiently(self._clock, lambda: self._records.newest(self.user_id))
        return outcome if newest is not None else None

    async def _news(self, last: Outcome | None) -> Outcome | None:
        """How a machine's last one ended, unless that is on record already."""
        if isinstance(last, Done):
            restic_id = last.restic_id
            rows = await patiently(self._clock, lambda: self._records.of_user(self.user_id, RECENT))
            return None if any(row.restic_id == restic_id for row in rows) else last
        return last if isinstance(last, Failed) else None

    def _told(self, progress: Progress) -> None:
        self.progress = progress
        for listener in list(self.listeners):
            listener(progress)

    def _prolong(self) -> None:
        prolonging = Deferred.fromCoroutine(self._records.prolong(self.snapshot, LEASE))
        prolonging.addCallbacks(self._prolonged, _not_prolonged)

    def _prolonged(self, ours: bool) -> None:
        if not ours:
            self.give_up("another router took it over")


def _not_prolonged(failure: Failure) -> None:
    failure.trap(DirectoryUnavailable)  # type: ignore[no-untyped-call]
    _log.warn("a snapshot's lease is not prolonged now: {error}", error=failure.value)


async def patiently(clock: IReactorTime, call: Callable[[], Awaitable[_T]]) -> _T:
    """
    What a call to the directory returns, made again while it is away.

    @raise DirectoryUnavailable: for too long.
    """
    for _ in range(RECORD_TRIES - 1):
        try:
            return await call()
        except DirectoryUnavailable:
            await deferLater(clock, FOLLOW_INTERVAL)
    return await call()


async def within(clock: IReactorTime, work: Deferred[_T], left: Callable[[], float]) -> _T:
    """
    What C{work} fires with.

    @param left: the seconds that it may still take: asked at first, and whenever they are over.
    @raise TimeoutError: there are none left; C{work} was cancelled.
    """
    clockwork = _Limit(clock, work, left)
    try:
        return await work
    except CancelledError:
        if clockwork.over:
            raise TimeoutError from None
        raise
    finally:
        clockwork.stop()


class _Limit:
    """Cancels work when no time is left for it."""

    def __init__(self, clock: IReactorTime, work: Deferred[_T], left: Callable[[], float]) -> None:
        self.over = False
        self._clock = clock
        self._work = work
        self._left = left
        self._next: IDelayedCall = clock.callLater(left(), self._look)

    def stop(self) -> None:
        if self._next.active():
            self._next.cancel()

    def _look(self) -> None:
        if (seconds := self._left()) > 0:
            self._next = self._clock.callLater(seconds, self._look)
        else:
            self.over = True
            self._work.cancel()


def word_for(outcome: Outcome | None) -> str:
    """What counters call it."""
    if isinstance(outcome, Done):
        return "partial" if outcome.partial else "done"
    if isinstance(outcome, Unchanged):
        return "unchanged"
    return "none" if outcome is None else "failed"
