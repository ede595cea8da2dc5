"""One attempt to wake a machine, from whatever state it is in to its first answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from twisted.internet.task import deferLater

from matrix.directory import DirectoryUnavailable, Past, StaleRow
from matrix.errors import Blocked, Gone, MatrixError, Unavailable
from matrix.http import Backend
from matrix.machines import LifecycleEvent, Started, next_state
from matrix.model import Machine, MachineState, User, UserState
from matrix.router import placing
from matrix.router.coming import Coming
from matrix.router.fleet import SOON, Fleet
from matrix.router.history import estimate, pause, still
from matrix.router.pauses import FAILURES, MOMENT, PRESSING, paused
from matrix.router.routes import Route, Wake
from matrix.router.yielding import RETURN_WAIT, news

OTHERS_INTERVAL = 0.1
"""Seconds, at most, between two looks at a machine that another router has in hand."""
_PHASES = {MachineState.PROVISIONING: "provisioning", MachineState.STARTING: "starting"}
"""What is told to those who wait while another router brings their machine up."""


class Rousing:
    """Wakes one route's machine."""

    def __init__(self, fleet: Fleet, route: Route, limit: float) -> None:
        """@param limit: seconds for the whole attempt, or without progress where there is any."""
        self._fleet = fleet
        self._route = route
        self._limit = limit
        self._clock = fleet.clock
        self._deadline = fleet.clock.seconds() + limit
        self._coming: Coming | None = None
        self._past = Past()
        self._claimed = False
        """Whether the row, which said suspended, is ours and says starting already."""
        self._unwritten: tuple[Machine, dict[str, object], Wake] | None = None

    @property
    def deadline(self) -> float:
        """By the clock, when it is to have ended by itself. Moves with progress."""
        return self._deadline if self._coming is None else self._coming.deadline

    async def run(self, email: str) -> Wake:
        """
        Returns once the machine answers HTTP and is the route's. Call L{note} then.

        @raise MatrixError: it does not, or its user may not come in.
        @raise DirectoryUnavailable: nothing can be known or written down now.
        """
        machine, lost = await self._arrive(email), False
        while True:
            try:
                return await self._from(await self._mine(machine))
            except StaleRow:
                # Another router changed the row in between: look again what is to be done.
                if self._clock.seconds() > self.deadline:
                    raise
            except Unavailable as error:
                if error.reason != "lost" or lost:
                    raise self._put_off(error) from error
                lost = True  # the row says so now, and the next turn makes another one
            machine = await self._row()

    async def _arrive(self, email: str) -> Machine:
        """Who wants it, and what there is of it; rows are made for those who are new."""
        fleet, route = self._fleet, self._route
        claim = {**self._waking(), **fleet.claim()}
        found = await fleet.directory.wakes.find(route.user_id, claim)
        self._claimed = found.claimed
        user, machine, self._past = found.user, found.machine, found.past
        if user is None or email not in ("", user.email):
            user = await fleet.directory.admit(route.user_id, email)
        check_state(user)
        route.idle_timeout = user.idle_timeout
        if machine is None:
            return await self._row()
        route.estimate = estimate(self._past, machine.state) or route.estimate
        if machine.state is MachineState.FAILED and route.cause not in PRESSING:
            seconds = still(self._past)
            if seconds > MOMENT:
                raise paused(seconds)
        return machine

    async def _row(self) -> Machine:
        fleet = self._fleet
        return await fleet.directory.create_machine(self._route.user_id, fleet.provider.name)

    def _put_off(self, error: Unavailable) -> Unavailable:
        """The next attempt is the further away the more have failed."""
        if error.reason in FAILURES:
            seconds = pause(self._past.failures + 1)
            error.retry_after = max(error.retry_after or 0.0, seconds)
        return error

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
        claimed, self._claimed = self._claimed, False
        if claimed:
            prior = MachineState.SUSPENDED
        if machine.machine_id is None or prior is MachineState.LOST:
            machine = await self._provision(machine)
        route.enter("starting")
        if not claimed:
            waking = self._waking(machine.state)
            machine = await fleet.directory.change(machine, **waking, **fleet.claim())
        row = fleet.row(machine)
        started: Started = await fleet.ask(row, placing.started(fleet, row, prior))
        if started.volume_id not in (None, row.machine.volume_id):
            await row.keep(volume_id=started.volume_id)
        start_s = clock.seconds() - began
        route.enter("waiting")
        coming = self._coming = Coming(fleet, route, row.machine, started, self._limit)
        backend = await coming.run()
        if trial := placing.answered(coming.machine):
            coming.machine = await fleet.directory.change(coming.machine, **trial)
        was = prior if prior is MachineState.PROVISIONING else started.was
        report = Wake(was, route.cause, start_s, clock.seconds() - began - start_s)
        self._install(coming, started.boot_id, backend, report)
        return report

    def _waking(self, prior: MachineState = MachineState.SUSPENDED) -> dict[str, object]:
        """What the row says while the machine starts."""
        state = next_state(prior, LifecycleEvent.WAKE)
        return {"state": state, "wake_cause": self._route.cause, "state_reason": None}

    def _install(self, coming: Coming, boot_id: str, backend: Backend, report: Wake) -> None:
        """
        Make the machine the route's. That it runs is written down only when those who wait are
        on their way (L{note}): nobody else acts on the row before, since it is leased, and a
        router that dies in between leaves what the next attempt finds running.
        """
        machine = coming.machine
        fields: dict[str, object] = {
            "state": next_state(machine.state, LifecycleEvent.WOKE),
            "address": coming.address,
            "boot_id": boot_id,
            "last_wake_at": datetime.now(UTC),
            "lease_owner": None,
            "lease_expires_at": None,
        }
        self._unwritten = machine, fields, report
        row = replace(machine, generation=machine.generation + 1, **fields)  # type: ignore[arg-type]
        self._fleet.install(self._route, row, backend)

    async def note(self) -> None:
        """Write down what L{run} came to; while the directory is away, as long as it is so."""
        if self._unwritten is None:
            return
        machine, fields, report = self._unwritten
        route, expected = self._route, self._route.row
        detail = {
            "was": report.was.value,
            "start_ms": round(report.start_s * 1000, 1),
            "ready_ms": round(report.ready_s * 1000, 1),
        }
        while True:
            try:
                await self._fleet.directory.wakes.change(
                    machine, "wake", report.cause, detail, **fields
                )
            except StaleRow:  # by another router; or by us, and we were not told
                route.unsure = True
            except DirectoryUnavailable:
                await deferLater(self._clock, RETURN_WAIT)
                if route.row is expected and route.phase == "awake":
                    continue
            return

    async def _provision(self, machine: Machine) -> Machine:
        """Make the machine: the row tells of it first, so that a crash leaks nothing."""
        fleet = self._fleet
        self._route.enter("provisioning")
        # By the cause the provider knows how urgent it is.
        claim = {"wake_cause": self._route.cause, **fleet.claim()}
        if machine.state is MachineState.LOST:
            machine = await fleet.advance(
                machine,
                LifecycleEvent.WAKE,
                machine_id=None,
                address=None,
                boot_id=None,
                **claim,
            )
        elif machine.state is MachineState.PROVISIONING:
            machine = await fleet.directory.change(machine, **claim)
        else:  # an earlier attempt failed before there was a machine
            machine = await fleet.advance(machine, LifecycleEvent.WAKE, **claim)
        row = fleet.row(machine)
        machine_id: str = await fleet.ask(row, placing.made(fleet, row))
        if row.machine.machine_id == machine_id:
            return row.machine
        return await row.keep(machine_id=machine_id)


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
