"""Putting a machine to sleep, unless somebody comes at any moment before it is frozen."""

from __future__ import annotations

from contextlib import suppress

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from matrix.directory import DirectoryUnavailable, StaleRow
from matrix.errors import Conflict
from matrix.http import Backend
from matrix.machines import LifecycleEvent, ProviderError, Recall, Recalled
from matrix.model import Machine, MachineState
from matrix.router.fleet import Fleet
from matrix.router.holding import Hold
from matrix.router.routes import Route
from matrix.router.yielding import IDLE, tell_use

HEARING_STEPS = 5
"""Looks, within the time for others to object, whether the machine is in use after all."""
DRAIN_TIME = 0.1
"""Seconds for the last bytes of ended streams to leave before the machine is frozen."""

_log = Logger()


def refuse_unless_it_sleeps(fleet: Fleet) -> None:
    """
    @raise Conflict: machines are never put to sleep.
    """
    if not fleet.provider.sleeps:
        raise Conflict(
            "machines are never put to sleep: auto_stop_machines is off in their template",
            reason="never-sleeps",
        )


async def freeze(fleet: Fleet, route: Route, backend: Backend, cause: str) -> bool:
    """
    Suspend a route's machine; its route must be cordoned already. Whether it sleeps now, or
    falls asleep and only a start brings it back.

    @raise StaleRow, DirectoryUnavailable, ProviderError: it could not be done; it runs on.
    """
    if route.row is None:
        return False
    attempt = _Attempt(fleet, route, backend, cause, route.row)
    route.listeners[attempt.heard] = None
    try:
        return await attempt.run()
    finally:
        route.listeners.pop(attempt.heard, None)


class _Attempt:
    """One attempt to put one machine to sleep."""

    def __init__(
        self, fleet: Fleet, route: Route, backend: Backend, cause: str, machine: Machine
    ) -> None:
        self._fleet = fleet
        self._route = route
        self._backend = backend
        self._used = route.used or 0.0
        self._cause = cause
        self._before = machine.suspend_cause
        self._hold = Hold(fleet, machine, self._noted)
        self._recall = Recall()
        self._trouble: Exception | None = None
        self._released = False

    def heard(self, route: Route) -> None:
        """Something is new with the route: perhaps a request came."""
        if route.wanted:
            self._recall.ask()

    async def run(self) -> bool:
        """See L{freeze}."""
        hold, route, recall = self._hold, self._route, self._recall
        if hold.machine.state is not MachineState.RUNNING:  # broken off half-way before
            await hold.settle(LifecycleEvent.KEEP)
        await hold.advance(LifecycleEvent.IDLE, suspend_cause=self._cause)
        seen = route.seen_active
        if self._cause == IDLE:
            if seen is not None and hold.machine.last_active_at != seen:
                return await self._keep()  # others used it since we asked
            # A lease that begins after our claim changes the row, which the next change finds.
            if await self._fleet.leases.hold(hold.machine):
                return await self._keep()
        try:
            await self._hear()
            await self._save()
            # Beyond this row others do not object any more, nor end their streams before it.
            await hold.advance(LifecycleEvent.DRAINED)
            route.drain("suspended")
            await recall.unless_asked(self._pause(DRAIN_TIME))
            await self._suspend()
        except Recalled:
            if self._trouble is not None:
                raise self._trouble from None
            return await self._keep()
        except ProviderError:
            await self._keep()
            raise
        if recall.asked:
            await _note(self._fleet, hold.machine, self._cause, {"interrupted": True})
        else:
            await _note_sleep(self._fleet, hold, self._cause)
        return True

    async def _hear(self) -> None:
        """
        Give other routers the time to object.

        @raise Recalled: it is in use here.
        @raise DirectoryUnavailable: others may not have heard of our claim.
        """
        for _ in range(HEARING_STEPS):
            self._look_for_use()
            await self._recall.unless_asked(self._pause(self._fleet.hearing / HEARING_STEPS))
            if self._fleet.directory.stale_since() is not None:
                raise DirectoryUnavailable("changes go unheard")
        self._look_for_use()
        self._recall.check()

    def _look_for_use(self) -> None:
        if self._route.requests or (self._route.used or 0.0) > self._used:
            self._recall.ask()

    async def _save(self) -> None:
        """
        Have its data saved, while others can still keep it awake.

        @raise Recalled: somebody did.
        """
        saving = _saved(self._fleet, self._hold.machine, self._backend, self._cause)
        await self._hold.during(self._recall.unless_asked(saving), self._look_while_saving)
        self._recall.check()

    async def _look_while_saving(self) -> None:
        self._look_for_use()
        if self._recall.asked:
            return
        try:
            if await self._changed_by_others():
                text = f"another router wants the machine of {self._route.user_id}"
                self._trouble = StaleRow(text)
            else:
                await self._hold.prolong()
        except (StaleRow, DirectoryUnavailable) as error:
            self._trouble = error
        if self._trouble is not None:
            self._recall.ask()

    async def _suspend(self) -> None:
        """
        Freeze it.

        @raise Recalled: somebody came before that was begun.
        @raise ProviderError: it runs on.
        """
        suspending = self._fleet.provider.suspend(self._hold.machine, self._recall)
        await self._hold.during(suspending, self._look_while_suspending)

    async def _look_while_suspending(self) -> None:
        """Once it falls asleep for certain, others need not wait to wake it until it sleeps."""
        if self._recall.asked:
            return
        try:
            if not self._recall.begun:
                await self._hold.prolong()
                return
            if not self._released:
                self._released = True
                await self._hold.release()
            if await self._changed_by_others(but=MachineState.SUSPENDED):
                self._recall.ask()
        except StaleRow:
            self._recall.ask()  # somebody wakes it
        except DirectoryUnavailable as error:
            _log.debug("{user} falls asleep: {error}", user=self._route.user_id, error=error)

    async def _changed_by_others(self, but: MachineState | None = None) -> bool:
        """
        Whether the directory told of a change, and it was another router's.

        @param but: the state that nobody minds.
        """
        if not self._route.unsure:
            return False
        self._route.unsure = False
        found = await self._fleet.directory.machine(self._route.user_id)
        if found is None:
            return True
        return found.state is not but and not self._hold.is_newest(found)

    async def _keep(self) -> bool:
        await self._hold.settle(LifecycleEvent.KEEP, suspend_cause=self._before)
        await tell_use(self._fleet, self._route)
        return False

    async def _pause(self, seconds: float) -> None:
        await deferLater(self._fleet.clock, seconds)

    def _noted(self, machine: Machine) -> None:
        self._route.row = machine


async def put_away(fleet: Fleet, machine: Machine, cause: str) -> None:
    """Suspend a machine that nobody may use, so that it has no route."""
    if not fleet.provider.sleeps:
        return
    hold = Hold(fleet, machine)
    try:
        await hold.advance(LifecycleEvent.IDLE, suspend_cause=cause)
        await _save(fleet, hold, cause)
        await hold.advance(LifecycleEvent.DRAINED)
        await fleet.provider.suspend(hold.machine)
    except StaleRow:
        _log.debug("{user} is put away by another router", user=machine.user_id)
    except (DirectoryUnavailable, ProviderError) as error:
        # What is left undone the reconciler finds.
        _log.warn("{user} is not put away: {error}", user=machine.user_id, error=error)
    else:
        await _note_sleep(fleet, hold, cause)


async def _save(fleet: Fleet, hold: Hold, cause: str) -> None:
    if hold.machine.address is None:
        return
    backend = fleet.connect(hold.machine.address)

    async def prolong() -> None:
        # Whoever was faster is found by the next change of the row.
        with suppress(StaleRow, DirectoryUnavailable):
            await hold.prolong()

    try:
        await hold.during(_saved(fleet, hold.machine, backend, cause), prolong)
    finally:
        backend.close()


async def _saved(fleet: Fleet, machine: Machine, backend: Backend, cause: str) -> None:
    """Have its data saved. Whatever becomes of that, the machine sleeps: it costs too much to
    let it run on for ever."""
    try:
        await fleet.saver.before_rest(machine, backend, cause)
    except CancelledError:
        raise
    except Exception:  # noqa: BLE001 -- whatever it is, the machine is to sleep
        _log.failure("{user} sleeps without a snapshot", user=machine.user_id)


async def _note_sleep(fleet: Fleet, hold: Hold, cause: str) -> None:
    """Write down that a machine is frozen; frozen it is even if that cannot be done now."""
    try:
        try:
            await hold.settle(LifecycleEvent.SUSPENDED, suspend_cause=cause)
        except StaleRow:
            found = await fleet.directory.machine(hold.machine.user_id)
            if found is None or found.state is not MachineState.SUSPENDED:
                raise  # somebody has woken it
    except (StaleRow, DirectoryUnavailable) as error:
        _log.warn("{user} sleeps, unrecorded: {error}", user=hold.machine.user_id, error=error)
    else:
        await _note(fleet, hold.machine, cause)


async def _note(
    fleet: Fleet, machine: Machine, cause: str, detail: dict[str, object] | None = None
) -> None:
    try:
        await fleet.directory.record(machine.user_id, "suspend", cause, detail)
    except DirectoryUnavailable as error:
        _log.warn("{user} sleeps, unrecorded: {error}", user=machine.user_id, error=error)
