"""Wake and rest: brings users' machines up when they are wanted, and to sleep when told."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.auth import MachineSecrets
from matrix.directory import DirectoryUnavailable, IDirectory, StaleRow
from matrix.errors import Blocked, Gone, MatrixError, Unavailable
from matrix.http import Backend, probe
from matrix.machines import (
    IProvider,
    LifecycleEvent,
    MachineGone,
    Observed,
    ProviderError,
    Started,
    next_state,
)
from matrix.metrics import Registry, series
from matrix.model import Address, Machine, MachineState, User, UserId, UserState
from matrix.router.routes import Route, RouteTable, Wake

PROBE_INTERVAL = 0.03
"""Seconds between two looks whether the machine answers yet: flat, since a wake is short and
each step of a back-off would be felt."""
PROBE_TIMEOUT = 2.0
"""Seconds for one look; a machine that is swapping in still gets through."""
RELEASE_BATCH = 16
"""Requests let go at once: a machine that just woke must not meet a thousand in one tick."""
RELEASE_INTERVAL = 0.005
"""Seconds between two batches."""
LEASE = timedelta(seconds=60)
"""For how long a router that died keeps others from a machine it was waking."""
OTHERS_INTERVAL = 0.1
"""Seconds between two looks at a machine that another router is waking."""
DRAIN_TIME = 0.1
"""Seconds for the last bytes of ended streams to leave before the machine is frozen."""
SOON = 1.0
"""Seconds after which to try again when nothing better is known."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class WakeRules:
    """Times in seconds."""

    attempt: float = 60.0
    """For one attempt, from first look to first answer."""


class Waker:
    """Carries out what the routes' state machines decide; implements L{routes.Driver}."""

    def __init__(
        self,
        clock: IReactorTime,
        directory: IDirectory,
        provider: IProvider,
        routes: RouteTable,
        secrets: MachineSecrets,
        connect: Callable[[Address], Backend],
        registry: Registry,
        owner: str,
        rules: WakeRules | None = None,
    ) -> None:
        """
        @param connect: makes the connections to a machine at an address.
        @param owner: names this router in leases.
        """
        self._clock = clock
        self._directory = directory
        self._provider = provider
        self._routes = routes
        self._secrets = secrets
        self._connect = connect
        self._registry = registry
        self._owner = owner
        self._rules = rules or WakeRules()
        self._running: set[Deferred[None]] = set()
        self._emails: dict[UserId, str] = {}

    # what requests, operators and timers ask for

    def want(self, user_id: UserId, cause: str, email: str = "") -> Deferred[Route]:
        """
        Fires with the user's route once their machine is awake; many callers share one
        attempt. Cancel it to wait no longer; the attempt goes on.

        Fails with a L{MatrixError}.
        """
        route = self._routes.ensure(user_id, self)
        waiter: Deferred[Route] = Deferred(lambda gone: route.waiters.pop(gone, None))
        if route.backend is None and not route.waiters:
            route.cause = cause
            self._emails[user_id] = email
        route.machine.want(waiter)
        return waiter

    async def wake(self, user_id: UserId, cause: str) -> None:
        """Wake a machine and wait until it is ready."""
        await self.want(user_id, cause)

    async def suspend(self, user_id: UserId, cause: str) -> None:
        """
        Suspend a machine, and wait until it is.

        @raise Unavailable: it was wanted meanwhile, or could not be suspended.
        """
        route = self._routes.ensure(user_id, self)
        if route.backend is None:
            await self._adopt_running(route)
        if route.backend is None:
            return
        route.machine.rest(cause)
        await self.settled(route)
        if route.backend is not None:
            raise Unavailable("The machine is in use; it was not suspended.", reason="in-use")

    def died(self, user_id: UserId) -> None:
        """The provider saw a machine's processes end."""
        route = self._routes.get(user_id)
        if route is not None:
            route.machine.lost()
        self._run(self._note_death(user_id))

    def lost(self, route: Route, backend: Backend) -> None:
        """A machine that was believed awake accepts no connection."""
        if route.backend is backend:
            route.machine.lost()

    async def stop(self) -> None:
        """Give up what is under way."""
        for running in list(self._running):
            running.cancel()

    async def settled(self, route: Route) -> None:
        """Wait until a route is on its way neither up nor down."""
        while route.phase not in ("awake", "resting"):
            await deferLater(self._clock, PROBE_INTERVAL)

    # Driver

    def begin_wake(self, route: Route) -> None:
        """See L{routes.Driver.begin_wake}."""
        route.enter("queued", self._clock.seconds())
        self._run(self._wake(route))

    def begin_rest(self, route: Route, cause: str) -> None:
        """See L{routes.Driver.begin_rest}."""
        route.enter("suspending", self._clock.seconds())
        self._run(self._rest(route, cause))

    def release(self, route: Route) -> None:
        """See L{routes.Driver.release}."""
        for waiter in list(route.waiters)[:RELEASE_BATCH]:
            del route.waiters[waiter]
            waiter.callback(route)
        if route.waiters:
            self._clock.callLater(RELEASE_INTERVAL, self._release_more, route)

    def _release_more(self, route: Route) -> None:
        # It may have been lost meanwhile: then those who still wait need another attempt.
        waiters, route.waiters = route.waiters, {}
        for waiter in waiters:
            if route.backend is not None:
                route.waiters[waiter] = None
            else:
                route.machine.want(waiter)
        if route.backend is not None:
            self.release(route)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        running = Deferred.fromCoroutine(work)
        if not running.called:
            self._running.add(running)
            running.addBoth(self._ended, running)
        running.addErrback(_failed)

    def _ended(self, result: Any, running: Deferred[None]) -> Any:
        self._running.discard(running)
        return result

    # waking

    async def _wake(self, route: Route) -> None:
        began = self._clock.seconds()
        try:
            report = await self._attempt(route, began)
        except CancelledError:
            self._give_up(route, Unavailable("The router is stopping.", retry_after=SOON))
        except MatrixError as error:
            self._give_up(route, error)
        except DirectoryUnavailable:
            self._give_up(
                route,
                Unavailable(
                    "The directory cannot be reached.", reason="directory", retry_after=SOON
                ),
            )
        except Exception:
            self._give_up(route, Unavailable("The wake failed.", reason="wake", retry_after=SOON))
            raise
        else:
            seconds = report.start_s + report.ready_s
            route.wake = report
            route.enter("awake", self._clock.seconds())
            if report.was != MachineState.RUNNING:
                route.learn(seconds)
                self._registry.counter(series.WAKES, report.was, report.cause).value += 1
                self._registry.histogram(series.WAKE_SECONDS, report.was).observe(seconds)
            route.machine.woke()

    def _give_up(self, route: Route, error: MatrixError) -> None:
        self._registry.counter(series.WAKE_FAILURES, route.cause).value += 1
        route.enter("resting", self._clock.seconds())
        route.machine.failed(error)

    async def _attempt(self, route: Route, began: float) -> Wake:
        user_id = route.user_id
        user = await self._directory.admit(user_id, self._emails.pop(user_id, ""))
        check_state(user)
        machine = await self._directory.create_machine(user_id, self._provider.name)
        deadline = began + self._rules.attempt
        while True:
            try:
                machine = await self._others(machine, deadline)
                if machine.state is MachineState.RUNNING and await self._reach(route, machine):
                    return Wake(MachineState.RUNNING, route.cause, 0.0, 0.0)
                return await self._start(route, machine, deadline)
            except StaleRow:
                if self._clock.seconds() > deadline:
                    raise
                machine = await self._directory.create_machine(user_id, self._provider.name)

    async def _others(self, machine: Machine, deadline: float) -> Machine:
        """Wait while another router has the machine in hand."""
        while machine.lease_owner not in (None, self._owner) and not _expired(machine):
            if self._clock.seconds() > deadline:
                raise Unavailable(
                    "Another router is busy with this machine.", reason="lease", retry_after=SOON
                )
            await deferLater(self._clock, OTHERS_INTERVAL)
            machine = await self._directory.machine(machine.user_id) or machine
        return machine

    async def _reach(self, route: Route, machine: Machine) -> bool:
        """Use a machine that is said to run, if it does."""
        if machine.address is None:
            return False
        backend = self._connect(machine.address)
        if not await probe(backend, PROBE_TIMEOUT):
            backend.close()
            return False
        self._install(route, machine, backend)
        return True

    async def _start(self, route: Route, machine: Machine, deadline: float) -> Wake:
        began = self._clock.seconds()
        prior = machine.state
        claim = {"lease_owner": self._owner, "lease_expires_at": _lease_end()}
        if machine.machine_id is None:
            route.enter("provisioning", began)
            machine = await self._directory.change(machine, **claim)
            machine_id = await self._provided(machine, self._provider.provision(machine))
            machine = await self._directory.change(machine, machine_id=machine_id)
        route.enter("starting", self._clock.seconds())
        state = next_state(machine.state, LifecycleEvent.WAKE)
        machine = await self._directory.change(
            machine, state=state, wake_cause=route.cause, state_reason=None, **claim
        )
        started: Started = await self._provided(
            machine, self._provider.start(machine, self._environment(machine))
        )
        machine = await self._directory.change(
            machine, address=started.address, boot_id=started.boot_id
        )
        start_s = self._clock.seconds() - began
        route.enter("waiting", self._clock.seconds())
        await self._answering(route, machine, deadline)
        was = prior if prior is MachineState.PROVISIONING else started.was
        report = Wake(was.value, route.cause, start_s, self._clock.seconds() - began - start_s)
        await self._note_wake(route, report)
        return report

    def _environment(self, machine: Machine) -> dict[str, str]:
        user_id, epoch = machine.user_id, machine.secret_epoch
        return {"MATRIX_MACHINE_TOKEN": self._secrets.router_to_daemon(user_id, epoch)}

    async def _provided(self, machine: Machine, work: Any) -> Any:
        """Ask the provider; its refusals are written down and become answers."""
        try:
            return await work
        except MachineGone as error:
            await self._note_failure(machine, LifecycleEvent.GONE, str(error))
            raise Unavailable("The machine is lost.", reason="lost", retry_after=SOON) from error
        except ProviderError as error:
            await self._note_failure(machine, LifecycleEvent.FAILED, str(error))
            raise Unavailable(
                "The machine could not be started.",
                reason="provider",
                retry_after=error.retry_after or SOON,
            ) from error

    async def _answering(self, route: Route, machine: Machine, deadline: float) -> None:
        """Wait until the machine answers HTTP, and make it the route's."""
        backend = self._connect(machine.address or Address())
        while not await probe(backend, PROBE_TIMEOUT):
            if self._clock.seconds() > deadline:
                backend.close()
                reason = f"no answer to HTTP within {self._rules.attempt:g} s"
                await self._note_failure(machine, LifecycleEvent.FAILED, reason)
                raise Unavailable(
                    "The machine runs but does not answer.", reason="not-ready", retry_after=SOON
                )
            observed: Observed = await self._provider.inspect(machine)
            if observed.state not in (MachineState.RUNNING, MachineState.SUSPENDED):
                backend.close()
                reason = "its processes ended before it answered HTTP"
                await self._note_failure(machine, LifecycleEvent.FAILED, reason)
                raise Unavailable("The machine died at start.", reason="died", retry_after=SOON)
            await deferLater(self._clock, PROBE_INTERVAL)
        running = await self._directory.change(
            machine,
            state=next_state(machine.state, LifecycleEvent.WOKE),
            last_wake_at=datetime.now(UTC),
            lease_owner=None,
            lease_expires_at=None,
        )
        self._install(route, running, backend)

    def _install(self, route: Route, machine: Machine, backend: Backend) -> None:
        token = self._secrets.router_to_daemon(machine.user_id, machine.secret_epoch)
        route.row = machine
        route.identity = (
            f"X-Matrix-User: {machine.user_id}\r\nAuthorization: Bearer {token}\r\n".encode()
        )
        route.backend = backend

    async def _adopt_running(self, route: Route) -> None:
        """Make a machine that runs ours to suspend, without waking one that does not."""
        machine = await self._directory.machine(route.user_id)
        if machine is None or machine.state is not MachineState.RUNNING:
            return
        if route.backend is None and route.phase == "resting" and await self._reach(route, machine):
            route.enter("awake", self._clock.seconds())
            route.machine.found()

    # resting

    async def _rest(self, route: Route, cause: str) -> None:
        backend, machine = route.backend, route.row
        route.backend = None  # cordon: from here on requests wait
        if backend is None or machine is None:
            route.enter("resting", self._clock.seconds())
            route.machine.rested()
            return
        try:
            frozen = await self._freeze(route, machine, backend, cause)
        except (StaleRow, DirectoryUnavailable, ProviderError, CancelledError) as error:
            _log.warn("{user} stays awake: {error}", user=route.user_id, error=error)
            frozen = False
        if frozen:
            backend.close()
            route.enter("resting", self._clock.seconds())
            self._registry.counter(series.SUSPENDS, cause).value += 1
            route.machine.rested()
        else:
            route.backend = backend
            route.enter("awake", self._clock.seconds())
            route.machine.kept()

    async def _freeze(self, route: Route, machine: Machine, backend: Backend, cause: str) -> bool:
        """Suspend, unless somebody comes at any moment before the provider is asked to."""
        used_at = backend.used_at
        machine = route.row = await self._directory.change(
            machine,
            state=next_state(machine.state, LifecycleEvent.IDLE),
            lease_owner=self._owner,
            lease_expires_at=_lease_end(),
        )
        if not self._unused(route, backend, used_at):
            await self._keep(route, machine)
            return False
        backend.drain("suspended")
        await deferLater(self._clock, DRAIN_TIME)
        if route.wanted:
            await self._keep(route, machine)
            return False
        machine = route.row = await self._directory.change(
            machine, state=next_state(machine.state, LifecycleEvent.DRAINED)
        )
        try:
            await self._provider.suspend(machine)
        except ProviderError:
            await self._keep(route, machine)
            raise
        route.row = await self._directory.change(
            machine,
            state=next_state(machine.state, LifecycleEvent.SUSPENDED),
            suspend_cause=cause,
            lease_owner=None,
            lease_expires_at=None,
        )
        await self._directory.record(route.user_id, "suspend", cause)
        return True

    @staticmethod
    def _unused(route: Route, backend: Backend, used_at: float) -> bool:
        return not route.wanted and not backend.requests and backend.used_at == used_at

    async def _keep(self, route: Route, machine: Machine) -> None:
        route.row = await self._directory.change(
            machine,
            state=next_state(machine.state, LifecycleEvent.KEEP),
            lease_owner=None,
            lease_expires_at=None,
        )

    # records

    async def _note_wake(self, route: Route, report: Wake) -> None:
        detail = {
            "was": report.was,
            "start_ms": round(report.start_s * 1000, 1),
            "ready_ms": round(report.ready_s * 1000, 1),
        }
        await self._directory.record(route.user_id, "wake", report.cause, detail)

    async def _note_failure(self, machine: Machine, event: LifecycleEvent, reason: str) -> None:
        _log.warn("{user}: {reason}", user=machine.user_id, reason=reason)
        await self._directory.change(
            machine,
            state=next_state(machine.state, event),
            state_reason=reason,
            lease_owner=None,
            lease_expires_at=None,
        )
        await self._directory.record(machine.user_id, event.value, "wake", {"reason": reason})

    async def _note_death(self, user_id: UserId) -> None:
        machine = await self._directory.machine(user_id)
        if machine is None or machine.state is not MachineState.RUNNING:
            return
        state = next_state(machine.state, LifecycleEvent.DIED)
        reason = "its processes ended by themselves"
        await self._directory.change(machine, state=state, state_reason=reason)
        await self._directory.record(user_id, "died", "machine")


def check_state(user: User) -> None:
    """
    @raise Blocked, Gone: the user may not come in.
    """
    if user.state is UserState.BLOCKED:
        raise Blocked("Ask the operator.", reason="blocked")
    if user.state is UserState.DELETED:
        raise Gone(reason="deleted")


def _expired(machine: Machine) -> bool:
    return machine.lease_expires_at is None or machine.lease_expires_at < datetime.now(UTC)


def _lease_end() -> datetime:
    return datetime.now(UTC) + LEASE


def _failed(failure: Failure) -> None:
    if not failure.check(CancelledError, StaleRow):  # type: ignore[no-untyped-call]
        _log.failure("work on a machine failed", failure=failure)
