"""Machines that exist only in memory: for tests and benchmarks, on any clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from matrix.machines._recall import Recall
from matrix.machines.interfaces import (
    IProvider,
    Keep,
    MachineGone,
    Observed,
    ProviderError,
    Recalled,
    Sighted,
    Started,
    SurveyPage,
)
from matrix.model import Address, Machine, MachineState, Stray, UserId

LOOK_SECONDS = 0.05
"""Between two looks at a machine that is coming up."""

_ASLEEP_OR_UP = frozenset({MachineState.RUNNING, MachineState.SUSPENDED})


@dataclass
class MemoryMachine:
    """One machine, as its provider sees it."""

    machine_id: str
    state: MachineState = MachineState.STOPPED
    boots: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    """What the latest boot was given."""

    @property
    def boot_id(self) -> str:
        return f"{self.machine_id}-boot-{self.boots}"


@dataclass
class MemoryFleet:
    """Machines that outlive their provider: hand the same fleet to the next one."""

    machines: dict[UserId, MemoryMachine] = field(default_factory=dict)
    made: int = 0
    watchers: list[Callable[[UserId], None]] = field(default_factory=list)
    others: dict[str, Sighted] = field(default_factory=dict)
    """What a survey finds besides: volumes, and machines of nobody."""
    on_their_way: dict[UserId, datetime] = field(default_factory=dict)
    """Machines that a survey finds in transition, and since when."""
    blind: tuple[str, ...] = ()
    """Regions that a survey does not see."""

    def die(self, user_id: UserId) -> None:
        """A machine's processes end without having been asked to."""
        machine = self.machines[user_id]
        if machine.state in _ASLEEP_OR_UP:
            machine.state = MachineState.STOPPED
            for died in list(self.watchers):
                died(user_id)


@implementer(IProvider)
class MemoryProvider:
    """
    A provider without processes.

    C{delays} (method name to seconds, changeable at any time) says how long each call
    takes, and C{suspending} how long a machine is on its way to sleep after C{suspend};
    L{fail} makes coming calls fail; C{calls} lists what was asked, in order.
    """

    name = "memory"
    moves = False
    sleeps = True

    def __init__(
        self,
        clock: IReactorTime,
        *,
        fleet: MemoryFleet | None = None,
        address: Callable[[UserId], Address] = lambda user_id: Address(path=f"/memory/{user_id}"),
    ) -> None:
        """
        @param fleet: the machines there are; none by default.
        @param address: where a user's machine listens.
        """
        self.fleet = MemoryFleet() if fleet is None else fleet
        self.delays: dict[str, float] = {}
        self.calls: list[tuple[str, UserId]] = []
        self.surveys = False
        """Whether there is more to be had at once than by inspecting each."""
        self._clock = clock
        self._address = address
        self._failures: defaultdict[str, list[ProviderError]] = defaultdict(list)
        self._turns: defaultdict[UserId, DeferredLock] = defaultdict(DeferredLock)
        self._watchers: list[Callable[[UserId], None]] = []
        self._closed = False

    def fail(self, method: str, error: ProviderError, times: int = 1) -> None:
        """Let the next calls of a method fail, after their delay and without an effect."""
        self._failures[method].extend([error] * times)

    async def provision(self, machine: Machine, environment: Mapping[str, str], keep: Keep) -> str:
        """See L{IProvider}."""
        turn = await self._turn("provision", machine.user_id)
        try:
            if machine.user_id not in self.fleet.machines:
                self.fleet.made += 1
                self.fleet.machines[machine.user_id] = MemoryMachine(f"memory-{self.fleet.made}")
            return self.fleet.machines[machine.user_id].machine_id
        finally:
            turn.release()

    async def relocate(
        self, machine: Machine, environment: Mapping[str, str], keep: Keep, fresh: bool
    ) -> str:
        """See L{IProvider}."""
        turn = await self._turn("relocate", machine.user_id)
        try:
            self.fleet.made += 1
            machine_id = f"memory-{self.fleet.made}"
            former = machine.machine_id
            await keep(former_machine_id=former, machine_id=machine_id, on_trial=True)
            self.fleet.machines[machine.user_id] = MemoryMachine(machine_id)
            return machine_id
        finally:
            turn.release()

    async def confirm(self, machine: Machine, keep: Keep) -> bool:
        """See L{IProvider}."""
        turn = await self._turn("confirm", machine.user_id)
        try:
            await keep(former_machine_id=None, former_volume_id=None)
            return True
        finally:
            turn.release()

    async def start(self, machine: Machine, environment: Mapping[str, str]) -> Started:
        """See L{IProvider}."""
        turn = await self._turn("start", machine.user_id)
        try:
            found = self.fleet.machines.get(machine.user_id)
            if found is None:
                raise MachineGone(f"user {machine.user_id} has no machine in memory")
            was = found.state
            if was is MachineState.STOPPED:
                was = was if found.boots else MachineState.PROVISIONING
                found.boots += 1
                found.environment = dict(environment)
            found.state = MachineState.RUNNING
            return Started(self._address(machine.user_id), found.boot_id, was)
        finally:
            turn.release()

    async def suspend(self, machine: Machine, recall: Recall | None = None) -> None:
        """See L{IProvider}."""
        recall = recall or Recall()
        turn = await self._turn("suspend", machine.user_id)
        try:
            recall.check()
            found = self.fleet.machines.get(machine.user_id)
            if found is not None and found.state is MachineState.RUNNING:
                found.state = MachineState.SUSPENDED
                recall.begin()
                with suppress(Recalled):
                    await recall.unless_asked(self._takes("suspending"))
        finally:
            turn.release()

    async def stop(self, machine: Machine) -> None:
        """See L{IProvider}."""
        turn = await self._turn("stop", machine.user_id)
        found = self.fleet.machines.get(machine.user_id)
        if found is not None:
            found.state = MachineState.STOPPED
        turn.release()

    async def destroy(self, machine: Machine) -> None:
        """See L{IProvider}."""
        turn = await self._turn("destroy", machine.user_id)
        self.fleet.machines.pop(machine.user_id, None)
        turn.release()

    async def inspect(self, machine: Machine) -> Observed:
        """See L{IProvider}."""
        await self._pass("inspect", machine.user_id)
        return self._observed(machine)

    def _observed(self, machine: Machine) -> Observed:
        found = self.fleet.machines.get(machine.user_id)
        if found is None:
            return Observed(MachineState.LOST)
        if found.state is MachineState.STOPPED:
            return Observed(found.state)
        return Observed(found.state, self._address(machine.user_id), found.boot_id)

    def survey(self) -> AsyncIterator[SurveyPage] | None:
        """One thing to a page. See L{IProvider}."""
        return self._survey() if self.surveys else None

    async def _survey(self) -> AsyncIterator[SurveyPage]:
        fleet = self.fleet
        for user_id, machine in list(fleet.machines.items()):
            await self._pass("survey", user_id)
            since = fleet.on_their_way.get(user_id)
            seen = Sighted(
                id=machine.machine_id, kind="machine", app="memory", name=f"u-{user_id}",
                region="here", user_id=user_id, ours=True, said=machine.state.value,
                state=None if since is not None else machine.state, since=since,
            )  # fmt: skip
            yield SurveyPage((seen,) if seen.region not in fleet.blind else (), fleet.blind)
        yield SurveyPage(tuple(fleet.others.values()), fleet.blind)

    async def discard(self, stray: Stray) -> bool:
        """See L{IProvider}."""
        await self._pass("discard", stray.user_id or UserId(""))
        self.fleet.others.pop(stray.id, None)
        return True

    async def follow(self, machine: Machine, up: bool) -> Observed:
        """See L{IProvider}."""
        await deferLater(self._clock, LOOK_SECONDS)
        await self._pass("follow", machine.user_id)
        return self._observed(machine)

    def watch(self, died: Callable[[UserId], None]) -> None:
        """See L{IProvider}."""
        self._watchers.append(died)
        self.fleet.watchers.append(died)

    async def close(self, stop_machines: bool) -> None:
        """See L{IProvider}."""
        if self._closed:
            return
        self._closed = True
        for died in self._watchers:
            self.fleet.watchers.remove(died)
        if stop_machines:
            for machine in self.fleet.machines.values():
                machine.state = MachineState.STOPPED

    async def _turn(self, method: str, user_id: UserId) -> DeferredLock:
        """Wait for the machine's turn and the call's delay; the caller releases the lock."""
        if self._closed:
            raise ProviderError("the provider was closed")
        turn = self._turns[user_id]
        await turn.acquire()
        try:
            await self._pass(method, user_id)
        except BaseException:
            turn.release()
            raise
        return turn

    async def _pass(self, method: str, user_id: UserId) -> None:
        self.calls.append((method, user_id))
        await self._takes(method)
        if self._failures[method]:
            raise self._failures[method].pop(0)

    async def _takes(self, name: str) -> None:
        if self.delays.get(name):
            await deferLater(self._clock, self.delays[name])
