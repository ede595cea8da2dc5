"""Has machines take their snapshots: when they are due, before they sleep, when somebody asks."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.directory import DirectoryUnavailable
from matrix.errors import Unavailable
from matrix.http import Backend
from matrix.metrics import Registry
from matrix.model import Machine, MachineState, Snapshot, UserId
from matrix.router.fleet import Fleet
from matrix.router.snapshots.book import Book
from matrix.router.snapshots.daemon import Daemons, Place
from matrix.router.snapshots.report import Done, Failed, Outcome, Progress, Unchanged
from matrix.router.snapshots.run import LEASE, Run, within
from matrix.snapshots import Schedule

OTHERS_INTERVAL = 0.5
"""Seconds between two looks whether another router's is done."""

SUSPEND = "suspend"
INTERVAL = "interval"
"""Causes of snapshots, as L{matrix.model.Snapshot.cause} names them."""

STOPPING = Failed("the router is stopping; the machine goes on")
"""What those hear who wait then."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much at a time, and how long a machine that is to sleep may take."""

    at_once: int
    budget: float
    """Seconds."""


class Taker:
    """
    All snapshots that this process has machines take; a L{matrix.router.saving.Saver}.

    Each is a L{Run} that goes on by itself: whoever wants it waits for as long as they like.
    """

    def __init__(
        self,
        fleet: Fleet,
        daemons: Daemons,
        schedule: Schedule,
        bounds: Bounds,
        registry: Registry,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """@param chance: evenly from 0 to 1."""
        self._fleet = fleet
        self._clock = fleet.clock
        self._daemons = daemons
        self._budget = bounds.budget
        self._at_once = bounds.at_once
        self._turns = DeferredSemaphore(bounds.at_once)
        self._records = fleet.directory.snapshots
        self._runs: dict[UserId, Run] = {}
        self._waiting: dict[Run, list[Deferred[Outcome | None]]] = {}
        self._working: set[Deferred[None]] = set()
        self.book = Book(fleet, schedule, registry, lambda: len(self._runs), chance)

    # what is under way

    @property
    def room(self) -> int:
        """How many more may be begun now that nobody waits for."""
        return max(0, self._at_once - len(self._runs))

    def holds(self, user_id: UserId) -> bool:
        """See L{matrix.router.saving.Saver.holds}."""
        return user_id in self._runs

    def progress(self, user_id: UserId) -> Progress | None:
        """How far a user's is, if this process has it taken and knows."""
        run = self._runs.get(user_id)
        return run.progress if run is not None else None

    async def stop(self) -> None:
        """Wait for nothing any more. What machines have begun they finish, and another process,
        or this one's successor, asks what became of it."""
        snapshots = [run.snapshot for run in self._runs.values()]
        for working in list(self._working):
            working.cancel()
        for snapshot in snapshots:
            try:
                await self._records.prolong(snapshot, 0.0)
            except DirectoryUnavailable:
                return  # their leases expire by themselves

    # taking

    def begin(self, snapshot: Snapshot, machine: Machine, *, needed: bool = False) -> Run:
        """
        Have one taken whose row is ours.

        @param needed: whether it is taken though nothing has changed.
        """
        run = self._run(snapshot, machine)
        self._carry_out(run, lambda: run.take(needed=needed))
        return run

    def look_after(self, snapshot: Snapshot, machine: Machine) -> None:
        """See to one that another router had begun before it ended; its row is ours now."""
        run = self._run(snapshot, machine)
        self._carry_out(run, run.look)

    async def before_rest(self, machine: Machine, backend: Backend, cause: str) -> None:
        """See L{matrix.router.saving.Saver.before_rest}."""
        user_id = machine.user_id
        if machine.address is None or self.book.is_none_of_ours(machine):
            return
        began = self._clock.seconds()

        def left() -> float:
            run = self._runs.get(user_id)
            if run is not None and run.turn_at is None:
                return self._budget  # a crowd that falls asleep at once must not sleep without
            since = began if run is None or run.turn_at is None else max(began, run.turn_at)
            return since + self._budget - self._clock.seconds()

        try:
            await within(self._clock, Deferred.fromCoroutine(self._before_rest(machine)), left)
        except TimeoutError:
            why = f"it took more than the {self._budget:g} s that there are before sleep"
            run = self._runs.get(user_id)
            if run is not None:
                run.give_up(why)
        except DirectoryUnavailable as error:
            _log.warn("{user} sleeps without a snapshot: {error}", user=user_id, error=error)

    async def _before_rest(self, machine: Machine) -> None:
        async def find() -> Machine:
            return machine

        await self._take(machine.user_id, SUSPEND, find)

    async def take_now(
        self, user_id: UserId, cause: str, told: Callable[[Progress], None]
    ) -> Outcome | None:
        """
        Have one taken for somebody who waits for it, of all that is there now.

        @param told: is told how far it is.
        @return: C{None} if what runs in the machine takes none.
        @raise Unavailable: the machine is not awake; wake it first.
        @raise DirectoryUnavailable: it cannot be known now.
        """

        async def find() -> Machine | None:
            machine: Machine | None = await self._fleet.directory.machine(user_id)
            if machine is None or machine.address is None:
                raise Unavailable("The machine is not awake.", reason="asleep", retry_after=1.0)
            safe = machine.state is MachineState.SUSPENDED and await self.is_safe(machine)
            return None if safe else machine

        return await self._take(user_id, cause, find, told)

    async def _take(
        self,
        user_id: UserId,
        cause: str,
        find: Callable[[], Awaitable[Machine | None]],
        told: Callable[[Progress], None] | None = None,
    ) -> Outcome | None:
        """
        What becomes of a snapshot of all that is there now. One that is under way may have passed
        by the last of it, and is followed by another.

        @param find: the machine; or C{None} if all of it is in a snapshot already.
        """
        former: Done | None = None
        while True:
            run, ours = self._runs.get(user_id), False
            if run is None:
                machine = await find()
                if machine is None:
                    return Unchanged()
                snapshot = await self._records.begin(user_id, cause, self._fleet.owner, LEASE)
                if snapshot is None:
                    await deferLater(self._clock, OTHERS_INTERVAL)
                    continue
                run, ours = self.begin(snapshot, machine), True
            outcome = await self._heard(run, told)
            if ours and not run.adopted:
                return former if former and isinstance(outcome, Unchanged) else outcome
            former = outcome if isinstance(outcome, Done) else former

    async def _heard(self, run: Run, told: Callable[[Progress], None] | None) -> Outcome | None:
        if told is None:
            return await self.outcome(run)
        run.listeners[told] = None
        try:
            return await self.outcome(run)
        finally:
            run.listeners.pop(told, None)

    async def is_safe(self, machine: Machine) -> bool:
        """Whether a sleeping machine's data are in a snapshot that was taken before it slept."""
        newest = await self._records.newest(machine.user_id)
        if newest is None or newest.finished_at is None or newest.cause != SUSPEND:
            return False
        used = [at for at in (machine.last_wake_at, machine.last_active_at) if at is not None]
        return all(at <= newest.started_at for at in used)

    async def outcome(self, run: Run) -> Outcome | None:
        """Wait for what becomes of one."""
        waiters = self._waiting[run]
        waiter: Deferred[Outcome | None] = Deferred(lambda gone: waiters.remove(gone))
        waiters.append(waiter)
        return await waiter

    def _run(self, snapshot: Snapshot, machine: Machine) -> Run:
        assert machine.address is not None  # it was seen to have one
        place = Place(machine.address, self._fleet.token(machine))
        run = Run(self._clock, self._records, self._daemons, snapshot, machine, place, self._turns)
        self._runs[run.user_id] = run
        self._waiting[run] = []
        return run

    def _carry_out(self, run: Run, work: Callable[[], Awaitable[Outcome | None]]) -> None:
        working = Deferred.fromCoroutine(self._see_through(run, work))
        if not working.called:
            self._working.add(working)
            working.addBoth(self._left, working)
        working.addErrback(_failed)

    def _left(self, result: object, working: Deferred[None]) -> object:
        self._working.discard(working)
        return result

    async def _see_through(self, run: Run, work: Callable[[], Awaitable[Outcome | None]]) -> None:
        outcome: Outcome | None = STOPPING
        began = self._clock.seconds()
        try:
            try:
                outcome = await work()
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 -- whatever it is, the schedule goes on
                _log.failure("{user}: a snapshot failed in the router", user=run.user_id)
                outcome = Failed(f"the router could not go on: {type(error).__name__}")
            await self.book.enter(run, outcome, self._clock.seconds() - began)
        finally:
            del self._runs[run.user_id]
            for waiter in list(self._waiting.pop(run)):
                waiter.callback(outcome)


def _failed(failure: Failure) -> None:
    if failure.check(DirectoryUnavailable):  # type: ignore[no-untyped-call]
        _log.warn("a snapshot is not on record yet: {error}", error=failure.value)
    elif not failure.check(CancelledError):  # type: ignore[no-untyped-call]
        _log.failure("a snapshot failed in the router", failure=failure)
