"""A machine's coming up, once it was started: until it serves, or certainly will not."""

from __future__ import annotations

from typing import NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.directory import DirectoryUnavailable
from matrix.errors import Unavailable
from matrix.http import Backend
from matrix.machines import LifecycleEvent, Observed, ProviderError, Started
from matrix.model import Address, Machine, MachineState
from matrix.router.fleet import LEASE, SOON, Fleet
from matrix.router.knocking import Knocking
from matrix.router.restoring import Restoring
from matrix.router.routes import Route

RENEWAL = LEASE.total_seconds() / 3
"""Seconds after which the lease is prolonged: two attempts may fail before others come."""

FOLLOW_AGAIN = 1.0
"""Seconds after which a provider is followed again that could not be."""

_log = Logger()


class Coming:
    """
    Knocks at one machine while its provider is listened to, whichever knows first. A machine
    that brings back its user's data has as long as that goes on.
    """

    def __init__(
        self, fleet: Fleet, route: Route, machine: Machine, started: Started, limit: float
    ) -> None:
        """
        @param machine: its row.
        @param limit: seconds without any progress.
        """
        self.machine = machine
        """Its row, as it was written last."""
        self.address = started.address
        """Where it is, as far as is known."""
        self._fleet = fleet
        self._clock = fleet.clock
        self._route = route
        self._boot_id = started.boot_id
        self._limit = limit
        self.deadline = fleet.clock.seconds() + limit
        """By the clock, when it is given up unless there is progress."""
        self._served: Deferred[Backend] = Deferred()
        self._restoring: Restoring | None = None
        self._restores_since = 0.0

    async def run(self) -> Backend:
        """
        Its connections, once it serves.

        @raise Unavailable: it does not; its row says why.
        @raise StaleRow: another router was faster.
        """
        self._knock_at(self.address)
        others = [Deferred.fromCoroutine(work) for work in (self._follow(), self._hold())]
        for other in others:
            other.addErrback(self._failed)
        try:
            return await self._served
        except Exception:
            self._leave()
            raise
        finally:
            for other in others:  # not at once: it may be one of them who led us here
                self._clock.callLater(0, other.cancel)

    # knocking

    def _knock_at(self, address: Address) -> None:
        self.address = address
        self._backend = backend = self._fleet.connect(address)
        place = self.machine.region or ""
        self._knocking = Knocking(self._fleet.knocks, backend, place, self._told)
        self._knocking.answered.addCallbacks(self._serves, self._failed, callbackArgs=(backend,))

    def _serves(self, answered: None, backend: Backend) -> None:
        if not self._served.called:
            self._served.callback(backend)

    def _failed(self, failure: Failure) -> None:
        if not self._served.called:
            self._served.errback(failure)
        elif not failure.check(CancelledError):  # type: ignore[no-untyped-call]
            _log.warn("{user}: {error}", user=self.machine.user_id, error=failure.value)

    def _leave(self) -> None:
        # Whoever left does not hear of it.
        self._knocking.answered.addErrback(_ignored)
        self._knocking.answered.cancel()
        self._backend.close()

    def _told(self, state: bytes) -> None:
        route, now = self._route, self._clock.seconds()
        before, said = self._restoring, Restoring.read(state)
        if before is None:
            self._restores_since = now
        if before is None or (said.done, said.total) != (before.done, before.total):
            self.deadline = now + self._limit
        self._restoring = route.restoring = said
        left = said.left(now - self._restores_since)
        if left is not None:
            route.estimate = now - route.began + left
        if route.phase != "restoring":
            route.enter("restoring")

    # what the provider knows

    async def _follow(self) -> None:
        provider, up = self._fleet.provider, False
        while not self._served.called:
            try:
                machine = self._there()
                seen: Observed = await provider.follow(machine, up)
            except ProviderError as error:
                _log.warn("cannot follow {user}: {error}", user=machine.user_id, error=error)
                await deferLater(self._clock, FOLLOW_AGAIN)
                continue
            if seen.state not in (MachineState.RUNNING, MachineState.SUSPENDED):
                await self._died()
            if seen.address is not None and seen.address != self.address:
                self._move(seen.address)
            else:
                self._knocking.nudge()
            up = True

    def _move(self, address: Address) -> None:
        """It was moved as it was started: at its former address there may be another by now."""
        _log.info(
            "{user} was moved from {old} to {new}",
            user=self.machine.user_id, old=self.address, new=address,
        )  # fmt: skip
        former, backend = self._knocking, self._backend
        former.answered.addErrback(_ignored)
        self._knock_at(address)
        former.answered.cancel()
        backend.close()

    def _there(self) -> Machine:
        machine = self.machine
        return Machine(
            machine.user_id, machine.provider, machine.state, machine.generation, app=machine.app,
            machine_id=machine.machine_id, volume_id=machine.volume_id, region=machine.region,
            address=self.address, boot_id=self._boot_id,
        )  # fmt: skip

    async def _died(self) -> NoReturn:
        reason = "its processes ended before it answered HTTP"
        await self._fleet.note_failure(self.machine, LifecycleEvent.FAILED, reason)
        raise Unavailable("The machine died at start.", reason="died", retry_after=SOON)

    # time

    async def _hold(self) -> NoReturn:
        """Keep other routers away, and give up in the end."""
        renewed = self._clock.seconds()
        while (now := self._clock.seconds()) < self.deadline:
            if now - renewed >= RENEWAL:
                renewed = now
                await self._renew()
            await deferLater(self._clock, min(self.deadline - now, RENEWAL))
        await self._not_ready()

    async def _renew(self) -> None:
        try:
            self.machine = await self._fleet.directory.change(
                self.machine,
                address=self.address,
                boot_id=self._boot_id,
                **self._fleet.claim(),
            )
        except DirectoryUnavailable as error:
            _log.warn("a lease is not prolonged: {error}", error=error)

    async def _not_ready(self) -> NoReturn:
        reason = f"no answer to HTTP within {self._limit:g} s"
        if self._restoring is not None:
            reason = f"{self._restoring}; nothing came of it for {self._limit:g} s"
        await self._fleet.note_failure(self.machine, LifecycleEvent.FAILED, reason)
        raise Unavailable(
            "The machine runs but does not answer.", reason="no-answer", retry_after=SOON
        )


def _ignored(failure: Failure) -> None:
    failure.trap(CancelledError)  # type: ignore[no-untyped-call]
