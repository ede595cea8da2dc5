"""Machines at Fly: the provider of production."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from matrix.machines import _fly_steps as steps
from matrix.machines._fly import FlyClient
from matrix.machines._fly_boots import boot_id
from matrix.machines._fly_errors import FlyError, Verdict
from matrix.machines._fly_following import MOVED_AFTER, until_down, until_up
from matrix.machines._fly_making import Making
from matrix.machines._fly_moving import Moving
from matrix.machines._fly_patience import Patience
from matrix.machines._fly_plans import REDACTED, USER_KEY, FlyPlans, Wanted
from matrix.machines._fly_rates import Priority, urgency
from matrix.machines._fly_resting import Resting, remove
from matrix.machines._fly_sight import Sight
from matrix.machines._fly_starting import Starting
from matrix.machines._fly_survey import discard, survey
from matrix.machines._fly_types import FlyMachine
from matrix.machines._fly_volumes import Ledger
from matrix.machines._recall import Recall
from matrix.machines.interfaces import (
    IProvider,
    IStocking,
    Keep,
    MachineGone,
    Observed,
    ProviderError,
    Started,
    Stranded,
    SurveyPage,
)
from matrix.model import Address, Machine, MachineState, Stray, UserId

PATIENCE = 50.0
"""Seconds for one thing that is asked of us: less than a router's lease on a machine."""

_SEEN: Mapping[str, MachineState] = {
    "started": MachineState.RUNNING,
    "starting": MachineState.RUNNING,
    "restarting": MachineState.RUNNING,
    "suspended": MachineState.SUSPENDED,
    "suspending": MachineState.SUSPENDED,
}
"""All others are stopped, or will be before they are anything else."""

_NOTHING = {"MATRIX_MACHINE_TOKEN": REDACTED}
"""Told to machines of which only the names matter."""

_log = Logger()


@implementer(IProvider, IStocking)
class FlyProvider:
    """
    Each user has a machine and a volume in one app, both named after the user. What is being
    done to a machine is written to its row, and whoever is interrupted may simply ask again.

    A machine that runs with an outdated config gets the present one when it is put to sleep:
    it is stopped then, instead of suspended, since Fly keeps no memory over a change.
    """

    name = "fly"
    claimed = steps.CLAIMED
    moves = True

    def __init__(
        self,
        client: FlyClient,
        plans: FlyPlans,
        clock: IReactorTime,
        *,
        let_go: Callable[[], Deferred[Any] | None] = lambda: None,
        patience: float = PATIENCE,
    ) -> None:
        """
        @param let_go: closes the connections to Fly.
        @param patience: seconds for one thing that is asked of us.
        """
        self._client = client
        self._plans = plans
        self.made_of = plans.made_of
        self._clock = clock
        self._let_go = let_go
        self._seconds = patience
        self._sight = Sight(client, plans, clock)
        self._turns: dict[UserId, DeferredLock] = {}
        self._closed = False

    async def provision(self, machine: Machine, environment: Mapping[str, str], keep: Keep) -> str:
        """Make volume and machine, or find them. See L{IProvider}."""
        async with self._turn(machine.user_id) as patience:
            making = self._making(self._ledger(machine, keep), environment, patience)
            machine_id = await making.run()
            if machine_id != machine.machine_id:
                self._sight.born(machine_id)
            return machine_id

    async def relocate(
        self, machine: Machine, environment: Mapping[str, str], keep: Keep, fresh: bool
    ) -> str:
        """With a copy of its volume, or an empty one. See L{IProvider}."""
        async with self._turn(machine.user_id) as patience:
            ledger = self._ledger(machine, keep)
            await Moving(self._sight, patience, ledger).begin(fresh)
            machine_id = await self._making(ledger, environment, patience).run()
            self._sight.born(machine_id)
            return machine_id

    async def confirm(self, machine: Machine, keep: Keep) -> bool:
        """Nobody starts what it deletes, so it takes no turn. See L{IProvider}."""
        patience = Patience(self._clock, self._seconds)
        return await Moving(self._sight, patience, self._ledger(machine, keep)).end()

    async def start(self, machine: Machine, environment: Mapping[str, str]) -> Started:
        """Start or resume it. See L{IProvider}."""
        async with self._turn(machine.user_id) as patience:
            wanted = partial(
                self._plans.wanted, machine.user_id, environment, machine.region, machine.size
            )
            try:
                return await Starting(self._sight, patience, machine, wanted).run()
            except FlyError as error:
                if error.verdict is Verdict.NO_CAPACITY:
                    raise Stranded(str(error), can_copy=True) from error
                raise

    @property
    def sleeps(self) -> bool:
        """See L{IProvider}. The template says it."""
        return self._plans.on_idle(None) != "off"

    async def suspend(self, machine: Machine, recall: Recall | None = None) -> None:
        """Suspend it, or stop it if the template says so. See L{IProvider}."""
        if machine.machine_id is not None:
            async with self._turn(machine.user_id) as patience:
                await Resting(self._sight, patience, machine, recall).suspend()

    async def stop(self, machine: Machine) -> None:
        """See L{IProvider}."""
        if machine.machine_id is not None:
            async with self._turn(machine.user_id) as patience:
                await Resting(self._sight, patience, machine).stop()

    async def destroy(self, machine: Machine) -> None:
        """Delete machine and volume. See L{IProvider}."""
        async with self._turn(machine.user_id) as patience:
            wanted = self._plans.wanted(machine.user_id, _NOTHING)
            await remove(self._sight, patience, machine, wanted)

    # in stock

    async def stock_up(self, place: Machine, keep: Keep) -> str:
        """With what is no user's. See L{IStocking}."""
        place_id, plans = place.user_id, self._plans

        def wanted_at(region: str | None, size: str | None) -> Wanted:
            return plans.stock(place_id, region, size)

        async with self._turn(place_id) as patience:
            ledger = self._ledger(place, keep)
            priority = Priority.HOUSEKEEPING
            making = Making(self._client, plans.place, patience, ledger, wanted_at, priority)
            return await making.run()

    async def clear_out(self, place: Machine) -> None:
        """See L{IStocking}."""
        async with self._turn(place.user_id) as patience:
            await remove(self._sight, patience, place, self._plans.stock(place.user_id))

    # what there is

    async def inspect(self, machine: Machine) -> Observed:
        """One call; takes no turn. See L{IProvider}."""
        try:
            found = await self._sight.look(machine, self._patience())
        except MachineGone:
            return Observed(MachineState.LOST)
        state = _SEEN.get(found.state, MachineState.STOPPED)
        if state is MachineState.STOPPED:
            return Observed(state)
        self._sight.seen_started(found)
        port = found.port or self._plans.port
        return Observed(
            state,
            Address(host=found.private_ip, port=port),
            boot_id(found, machine.boot_id, state),
        )

    def survey(self) -> AsyncIterator[SurveyPage]:
        """By the listings of the organization. See L{IProvider}."""
        return survey(self._client, self._plans, self._patience)

    async def discard(self, stray: Stray) -> bool:
        """See L{IProvider}."""
        if stray.user_id is None:
            return False
        async with self._turn(stray.user_id) as patience:
            return await discard(self._client, stray, patience)

    async def follow(self, machine: Machine, up: bool) -> Observed:
        """By Fly's waits; a look when there is something to be seen. See L{IProvider}."""
        if not up:
            if await until_up(self._sight, self._clock, machine):
                return Observed(MachineState.RUNNING)
            return await self.inspect(machine)
        await deferLater(self._clock, MOVED_AFTER)
        seen = await self.inspect(machine)
        if seen.state is MachineState.RUNNING and seen.address == machine.address:
            await until_down(self._sight, self._clock, machine)
            seen = await self.inspect(machine)
        return seen

    def watch(self, died: Callable[[UserId], None]) -> None:
        """Fly tells nobody: whoever inspects a machine sees it."""

    async def close(self, stop_machines: bool) -> None:
        """Finish what is under way, and let go. See L{IProvider}."""
        if self._closed:
            return
        self._closed = True
        for turn in list(self._turns.values()):
            await turn.acquire()
            turn.release()
        if stop_machines:
            patience = self._patience()
            found = await patience.of(lambda: self._client.machines(self._plans.place.app))
            ours = [each for each in found if USER_KEY in each.metadata and not each.is_gone]
            await gatherResults([Deferred.fromCoroutine(self._stop_last(one)) for one in ours])
        self._client.close()
        letting_go = self._let_go()
        if letting_go is not None:
            await letting_go

    async def _stop_last(self, found: FlyMachine) -> None:
        """Stop one of many: the others must not suffer from its failure."""
        user_id = UserId(found.metadata[USER_KEY])
        machine = Machine(user_id, self.name, MachineState.RUNNING, 0, machine_id=found.id)
        self._sight.seen_started(found)
        try:
            await Resting(self._sight, self._patience(), machine).stop()
        except ProviderError as error:
            _log.error("{user} could not be stopped: {error}", user=user_id, error=error)

    def _patience(self) -> Patience:
        return Patience(self._clock, self._seconds)

    def _ledger(self, machine: Machine, keep: Keep) -> Ledger:
        return Ledger(machine, keep, self._sight.app(machine))

    def _making(self, ledger: Ledger, environment: Mapping[str, str], patience: Patience) -> Making:
        user_id, plans = ledger.row.user_id, self._plans

        def wanted_at(region: str | None, size: str | None) -> Wanted:
            return plans.wanted(user_id, environment, region, size)

        priority = urgency(ledger.row.wake_cause)
        return Making(self._client, plans.place, patience, ledger, wanted_at, priority)

    @asynccontextmanager
    async def _turn(self, user_id: UserId) -> AsyncIterator[Patience]:
        """One at a time for each user."""
        if self._closed:
            raise ProviderError("the provider was closed: Matrix is stopping")
        turn = self._turns.setdefault(user_id, DeferredLock())
        await turn.acquire()
        try:
            yield self._patience()
        finally:
            turn.release()
            # The next in turn may have run to its end within release().
            if not turn.locked and self._turns.get(user_id) is turn:
                del self._turns[user_id]
