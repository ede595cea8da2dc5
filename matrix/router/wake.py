"""Wake and rest: brings users' machines up when they are wanted, and to sleep when told."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.directory import DirectoryUnavailable, StaleRow
from matrix.errors import MatrixError, Unavailable
from matrix.http import Backend
from matrix.machines import ProviderError
from matrix.metrics import Registry, series
from matrix.model import MachineState, UserId, UserState
from matrix.router.fleet import SOON, Fleet
from matrix.router.heeding import Heed
from matrix.router.overtime import bounded
from matrix.router.pauses import PAUSED, PRESSING, Pauses
from matrix.router.resting import freeze, put_away, refuse_unless_it_sleeps
from matrix.router.rousing import Rousing
from matrix.router.routes import Route, RouteTable
from matrix.router.works import Works
from matrix.router.yielding import BLOCKED, ELSEWHERE, give_way, let_go

ATTEMPT_LIMIT = 60.0
"""Seconds for one wake: longer than any request waits, so that a slow machine still comes up
for those who try again."""
OVERTIME = 10.0
"""Further seconds for an attempt to end by itself, its reason noted, before it is given up."""
RELEASE_BATCH = 16
"""Requests let go at once: a machine that just woke must not meet a thousand in one tick."""
RELEASE_INTERVAL = 0.005
"""Seconds between two batches."""
SETTLE_INTERVAL = 0.02
"""Seconds between two looks whether a machine has come to rest."""

UNDER_WAY = "under way"
"""What C{events} say of a wake for requests that were under way when the machine was frozen:
this process was too busy to hear of it in time."""

_log = Logger()


class Waker:
    """Carries out what the routes' state machines decide; implements L{routes.Driver}."""

    def __init__(
        self,
        fleet: Fleet,
        routes: RouteTable,
        registry: Registry,
        attempt_limit: float = ATTEMPT_LIMIT,
    ) -> None:
        """@param attempt_limit: seconds for one wake."""
        self._fleet = fleet
        self._clock = fleet.clock
        self._routes = routes
        self._registry = registry
        self._attempt_limit = attempt_limit
        self._works = Works()
        self._run = self._works.run
        self._emails: dict[UserId, str] = {}
        self._pauses = Pauses(fleet.clock)
        self._unnoted: set[UserId] = set()
        self.heed = Heed(fleet, routes, self._run, self._rescue)
        """Sees to what the directory tells of."""

    # what requests, operators and timers ask for

    def want(self, user_id: UserId, cause: str, email: str = "") -> Deferred[Route]:
        """
        Fires with the user's route once their machine is awake; many callers share one
        attempt. Cancel it to wait no longer; the attempt goes on.

        Fails with a L{MatrixError}.
        """
        route = self._routes.ensure(user_id, self)
        pause = None if cause in PRESSING else self._pauses.check(user_id)
        if pause is not None and route.phase == "resting":
            return fail(pause)
        waiter: Deferred[Route] = Deferred(lambda gone: route.waiters.pop(gone, None))
        if route.phase in ("resting", "suspending") and not route.waiters:
            route.cause = cause
            self._emails[user_id] = email
        route.machine.want(waiter)
        return waiter

    async def wake(self, user_id: UserId, cause: str) -> None:
        """Wake a machine and wait until it is ready, and all routers know it."""
        await self.settled(await self.want(user_id, cause))

    async def suspend(self, user_id: UserId, cause: str) -> None:
        """
        Suspend a machine, and wait until it is.

        @raise Unavailable: it was wanted meanwhile, or could not be suspended.
        """
        refuse_unless_it_sleeps(self._fleet)
        route = self._routes.ensure(user_id, self)
        await self.settled(route)
        if route.backend is None:
            try:
                await self.adopt(user_id)
            except DirectoryUnavailable:
                raise self._no_directory() from None
        if route.backend is None:
            return
        route.machine.rest(cause)
        await self.settled(route)
        if route.backend is not None:
            raise Unavailable("The machine is in use; it was not suspended.", reason="in-use")

    def died(self, user_id: UserId) -> None:
        """The provider saw a machine's processes end."""
        route = self._routes.get(user_id)
        row = route.row if route is not None else None
        if route is not None:
            route.machine.lost()
        self._run(self._fleet.note_death(user_id, row.boot_id if row is not None else None))

    def lost(self, route: Route, backend: Backend) -> None:
        """A machine that was believed awake accepts no connection."""
        if route.backend is backend:
            route.machine.lost()

    async def stop(self) -> None:
        """Give up what is under way."""
        self._works.give_up()

    async def settled(self, route: Route) -> None:
        """Wait until a route is on its way neither up nor down, and its row says so."""
        while route.phase not in ("awake", "resting") or route.user_id in self._unnoted:
            await deferLater(self._clock, SETTLE_INTERVAL)

    # Driver

    def begin_wake(self, route: Route) -> None:
        """See L{routes.Driver.begin_wake}."""
        route.began, route.restoring = self._clock.seconds(), None
        route.enter("queued")
        self._run(self._wake(route))

    def begin_rest(self, route: Route, cause: str) -> None:
        """See L{routes.Driver.begin_rest}."""
        route.enter("suspending")
        self._run(self._rest(route, cause))

    def release(self, route: Route) -> None:
        """See L{routes.Driver.release}."""
        if route.releasing:
            return
        for waiter in list(route.waiters)[:RELEASE_BATCH]:
            route.waiters.pop(waiter, None)
            if not waiter.called:  # nor given up while those before it went
                waiter.callback(route)
        if route.waiters:
            route.releasing = True
            self._clock.callLater(RELEASE_INTERVAL, self._release_more, route)

    def _release_more(self, route: Route) -> None:
        route.releasing = False
        # It may have been lost meanwhile: then those who still wait need another attempt.
        waiters, route.waiters = route.waiters, {}
        for waiter in waiters:
            if route.backend is not None:
                route.waiters[waiter] = None
            else:
                route.machine.want(waiter)
        if route.backend is not None:
            self.release(route)

    # waking

    async def _wake(self, route: Route) -> None:
        email = self._emails.pop(route.user_id, "")
        rousing = Rousing(self._fleet, route, self._attempt_limit)
        attempt = Deferred.fromCoroutine(rousing.run(email))
        try:
            report = await bounded(attempt, self._clock, lambda: rousing.deadline + OVERTIME)
        except CancelledError:
            self._give_up(route, Unavailable("The router is stopping.", retry_after=SOON))
        except TimeoutError:
            text = "The machine's provider does not answer."
            self._give_up(route, Unavailable(text, reason="provider-silent", retry_after=SOON))
        except MatrixError as error:
            self._give_up(route, error)
        except DirectoryUnavailable:
            self._give_up(route, self._no_directory())
            self._run(let_go(self._fleet, route))
        except Exception:
            self._give_up(route, Unavailable("The wake failed.", reason="wake", retry_after=SOON))
            raise
        else:
            seconds = report.start_s + report.ready_s
            route.wake = report
            route.enter("awake")
            if report.was != MachineState.RUNNING:
                route.learn(seconds)
                self._registry.counter(series.WAKES, report.was, report.cause).value += 1
                self._registry.histogram(series.WAKE_SECONDS, report.was).observe(seconds)
            self._unnoted.add(route.user_id)
            route.machine.woke()
            self._run(self._note(route, rousing))

    async def _note(self, route: Route, rousing: Rousing) -> None:
        try:
            await rousing.note()
        finally:
            self._unnoted.discard(route.user_id)
            self.heed.look_again(route)
        if route.phase == "resting":  # lost before others could know that it runs
            await self.adopt(route.user_id)

    def _give_up(self, route: Route, error: MatrixError) -> None:
        self._pauses.note(route.user_id, error)
        if error.reason != PAUSED:
            self._registry.counter(series.WAKE_FAILURES, route.cause).value += 1
        route.enter("resting")
        route.machine.failed(error)

    def _no_directory(self) -> Unavailable:
        return Unavailable("The directory cannot be reached.", reason="directory", retry_after=SOON)

    # machines that run without our doing

    async def adopt(self, user_id: UserId) -> None:
        """Take charge of a machine that runs, without waking one that does not."""
        route = self._routes.ensure(user_id, self)
        machine = await self._fleet.directory.machine(user_id)
        if machine is None or machine.state is not MachineState.RUNNING or machine.on_trial:
            return
        user = await self._fleet.directory.user(user_id)
        if user is None or user.state is not UserState.ACTIVE:
            await put_away(self._fleet, machine, BLOCKED)
            return
        if route.phase != "resting":
            return
        backend = await self._fleet.reach(machine)
        if backend is None:
            return
        if route.phase == "resting":
            route.idle_timeout = user.idle_timeout
            self._fleet.install(route, machine, backend)
            route.adopted(machine.last_active_at)
            route.enter("awake")
            route.machine.found()
        else:  # somebody woke it meanwhile, and has connections of their own
            backend.close()

    def changed(self, user_id: UserId | None) -> None:
        """The directory tells that something changed; C{None}: perhaps anything."""
        self._pauses.forget(user_id)
        self.heed.changed(user_id)

    # resting

    async def _rest(self, route: Route, cause: str) -> None:
        backend, route.backend = route.backend, None  # cordon: from here on requests wait
        route.cordoned = backend
        assert backend is not None  # the state machine was awake
        frozen = False
        try:
            if cause == ELSEWHERE:
                frozen = await give_way(self._fleet, route)
            else:
                frozen = await freeze(self._fleet, route, backend, cause)
        except StaleRow:
            _log.info("{user} stays awake: another router has it in use", user=route.user_id)
            route.unsure = True
        except (DirectoryUnavailable, ProviderError, CancelledError) as error:
            _log.warn("{user} stays awake: {error}", user=route.user_id, error=error)
            route.unsure = True
        finally:
            self._rested(route, backend, cause, frozen)

    def _rested(self, route: Route, backend: Backend, cause: str, frozen: bool) -> None:
        route.cordoned = None
        if frozen:
            route.part_with(backend)
            route.enter("resting")
            if cause != ELSEWHERE:
                self._registry.counter(series.SUSPENDS, cause).value += 1
            route.machine.rested()
            row = route.row
            if row is None:
                return
            if route.requests and row.state is MachineState.SUSPENDED:
                self._rescue(route)
            if row.lease_owner == self._fleet.owner:  # it could not be written down
                self._run(let_go(self._fleet, route))
        else:
            if cause != ELSEWHERE:
                self._registry.counter(series.SUSPENDS_CALLED_OFF, cause).value += 1
            route.backend = backend
            route.enter("awake")
            route.machine.kept()
            self.heed.look_again(route)

    def _rescue(self, route: Route) -> None:
        """Wake a machine again that was put to sleep under requests of ours."""
        self.want(route.user_id, UNDER_WAY).addErrback(_not_rescued, route.user_id)


def _not_rescued(failure: Failure, user_id: UserId) -> None:
    """Those whose requests are under way learn of it by their time limit."""
    failure.trap(MatrixError, CancelledError)  # type: ignore[no-untyped-call]
    _log.warn("{user} sleeps with requests under way: {error}", user=user_id, error=failure.value)
