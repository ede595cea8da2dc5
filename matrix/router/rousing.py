"""One attempt to wake a machine, from whatever state it is in to its first answer."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.internet.task import deferLater
from twisted.logger import Logger

from matrix.directory import StaleRow
from matrix.errors import Blocked, Gone, MatrixError, Unavailable
from matrix.http import Backend, probe
from matrix.machines import LifecycleEvent, Observed, ProviderError, Started
from matrix.model import Address, Machine, MachineState, User, UserState
from matrix.router import placing
from matrix.router.fleet import PROBE_TIMEOUT, SOON, Fleet
from matrix.router.routes import Route, Wake
from matrix.router.yielding import news

PROBE_INTERVAL = 0.03
"""Seconds between two looks whether the machine answers yet: flat, since a wake is short and
each step of a back-off would be felt."""
OTHERS_INTERVAL = 0.1
"""Seconds, at most, between two looks at a machine that another router has in hand."""
_PHASES = {MachineState.PROVISIONING: "provisioning", MachineState.STARTING: "starting"}
"""What is told to those who wait while another router brings their machine up."""

_log = Logger()


class Rousing:
    """Wakes one route's machine."""

    def __init__(self, fleet: Fleet, route: Route, limit: float) -> None:
        """@param limit: seconds for the whole attempt."""
        self._fleet = fleet
        self._route = route
        self._limit = limit
        self._clock = fleet.clock
        self._deadline = fleet.clock.seconds() + limit

    async def run(self, email: str) -> Wake:
        """
        Returns once the machine answers HTTP and is the route's.

        @raise MatrixError: it does not, or its user may not come in.
        @raise DirectoryUnavailable: nothing can be known or written down now.
        """
        fleet, user_id = self._fleet, self._route.user_id
        user = await fleet.directory.admit(user_id, email)
        check_state(user)
        self._route.idle_timeout = user.idle_timeout
        while True:
            machine = await fleet.directory.create_machine(user_id, fleet.provider.name)
            try:
                return await self._from(await self._mine(machine))
            except StaleRow:
                # Another router changed the row in between: look again what is to be done.
                if self._clock.seconds() > self._deadline:
                    raise

    async def _from(self, machine: Machine) -> Wake:
        if machine.state is MachineState.RUNNING and not machine.on_trial:
            backend = await self._fleet.reach(machine)
            if backend is not None:
                self._fleet.install(self._route, machine, backend)
                return Wake(machine.state, self._route.cause, 0.0, 0.0)
        return await self._start(machine)

    async def _mine(self, machine: Machine) -> Machine:
        """
        Wait while another router has the machine in hand, or stop it if that is possible.

        @raise StaleRow: the machine's row has just changed.
        """
        began, waited = self._clock.seconds(), False
        while self._fleet.taken(machine):
            waited = True
            if machine.state is MachineState.DRAINING:
                return await self._fleet.settle(machine, LifecycleEvent.KEEP)
            phase = _PHASES.get(machine.state, self._route.phase)
            if phase != self._route.phase:
                self._route.enter(phase)
            if self._clock.seconds() > self._deadline:
                raise Unavailable(
                    "Another router is busy with this machine.", reason="lease", retry_after=SOON
                )
            self._route.unsure = False
            await news(self._clock, self._route, OTHERS_INTERVAL)
            machine = await self._fleet.directory.machine(machine.user_id) or machine
        if waited and machine.state is MachineState.RUNNING:
            self._route.learn(self._clock.seconds() - began)
        return machine

    async def _start(self, machine: Machine) -> Wake:
        fleet, route, clock = self._fleet, self._route, self._clock
        began, prior = clock.seconds(), machine.state
        if machine.machine_id is None or prior is MachineState.LOST:
            machine = await self._provision(machine)
        route.enter("starting")
        machine = await fleet.advance(
            machine,
            LifecycleEvent.WAKE,
            wake_cause=route.cause,
            state_reason=None,
            **fleet.claim(),
        )
        row = fleet.row(machine)
        started: Started = await fleet.ask(row, placing.started(fleet, row, prior))
        machine = await fleet.directory.change(
            row.machine,
            address=started.address,
            boot_id=started.boot_id,
            volume_id=started.volume_id or row.machine.volume_id,
        )
        start_s = clock.seconds() - began
        route.enter("waiting")
        await self._answering(machine, started.address)
        was = prior if prior is MachineState.PROVISIONING else started.was
        report = Wake(was, route.cause, start_s, clock.seconds() - began - start_s)
        detail = {
            "was": was.value,
            "start_ms": round(start_s * 1000, 1),
            "ready_ms": round(report.ready_s * 1000, 1),
        }
        await fleet.directory.record(route.user_id, "wake", route.cause, detail)
        return report

    async def _provision(self, machine: Machine) -> Machine:
        """Make the machine: the row tells of it first, so that a crash leaks nothing."""
        fleet = self._fleet
        self._route.enter("provisioning")
        if machine.state is MachineState.LOST:
            machine = await fleet.advance(
                machine,
                LifecycleEvent.WAKE,
                machine_id=None,
                address=None,
                boot_id=None,
                **fleet.claim(),
            )
        elif machine.state is MachineState.PROVISIONING:
            machine = await fleet.directory.change(machine, **fleet.claim())
        else:  # an earlier attempt failed before there was a machine
            machine = await fleet.advance(machine, LifecycleEvent.WAKE, **fleet.claim())
        row = fleet.row(machine)
        machine_id: str = await fleet.ask(row, placing.made(fleet, row))
        if row.machine.machine_id == machine_id:
            return row.machine
        return await row.keep(machine_id=machine_id)

    async def _answering(self, machine: Machine, address: Address) -> None:
        """Wait until the machine answers HTTP, and make it the route's."""
        fleet, clock = self._fleet, self._clock
        backend = fleet.connect(address)
        looked_at = clock.seconds()
        while not await probe(backend, PROBE_TIMEOUT):
            if clock.seconds() > self._deadline:
                await self._not_ready(machine, backend)
            if clock.seconds() - looked_at >= 1.0:
                await self._check_alive(machine, backend)
                looked_at = clock.seconds()
            await deferLater(clock, PROBE_INTERVAL)
        now = datetime.now(UTC)
        machine = await fleet.settle(
            machine, LifecycleEvent.WOKE, last_wake_at=now, **placing.answered(machine)
        )
        fleet.install(self._route, machine, backend)

    async def _not_ready(self, machine: Machine, backend: Backend) -> None:
        backend.close()
        reason = f"no answer to HTTP within {self._limit:g} s"
        await self._fleet.note_failure(machine, LifecycleEvent.FAILED, reason)
        raise Unavailable(
            "The machine runs but does not answer.", reason="no-answer", retry_after=SOON
        )

    async def _check_alive(self, machine: Machine, backend: Backend) -> None:
        try:
            observed: Observed = await self._fleet.provider.inspect(machine)
        except ProviderError as error:
            _log.warn("cannot inspect {user}: {error}", user=machine.user_id, error=error)
            return
        if observed.state in (MachineState.RUNNING, MachineState.SUSPENDED):
            return
        backend.close()
        reason = "its processes ended before it answered HTTP"
        await self._fleet.note_failure(machine, LifecycleEvent.FAILED, reason)
        raise Unavailable("The machine died at start.", reason="died", retry_after=SOON)


def check_state(user: User) -> None:
    """
    @raise Blocked, Gone: the user may not come in.
    """
    if user.state is not UserState.ACTIVE:
        raise not_admitted(user.state)


def not_admitted(state: UserState) -> MatrixError:
    """What a user in this state, who may not come in, is told."""
    if state is UserState.DELETED:
        return Gone(reason="deleted")
    return Blocked("Ask the operator.", reason="blocked")
