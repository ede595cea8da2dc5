"""The contract of L{IProvider} as tests: every implementation passes all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import uuid4

from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from matrix.directory._rows import check_changes
from matrix.machines._recall import Recall
from matrix.machines.interfaces import IProvider, MachineGone, ProviderError, Recalled, Started
from matrix.model import Machine, MachineState, UserId, user_id

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Case
else:
    _Case = object


def somebody(who: UserId | None = None) -> Machine:
    """The directory's row of a user's machine, of a fresh user by default."""
    who = who or user_id(str(uuid4()))
    return Machine(who, "any", MachineState.PROVISIONING, generation=1)


class Row:
    """A machine's row without a directory."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.writes: list[dict[str, object]] = []

    async def keep(self, **fields: object) -> Machine:
        """See L{matrix.machines.Keep}."""
        check_changes(fields)
        self.writes.append(fields)
        self.machine = replace(self.machine, **fields)  # type: ignore[arg-type]
        return self.machine


async def made(
    provider: IProvider, machine: Machine, environment: Mapping[str, str] | None = None
) -> Machine:
    """The row of a machine that is provisioned, or is again."""
    row = Row(machine)
    machine_id = await provider.provision(machine, environment or {}, row.keep)
    assert machine_id
    return await row.keep(machine_id=machine_id)


class ProviderContract(_Case):
    """
    Mix into a trial C{TestCase} whose C{setUp} sets L{provider} to one without machines,
    and whose C{tearDown} leaves nothing behind.
    """

    provider: IProvider
    environment: Mapping[str, str] = MappingProxyType({})
    """What machines are told."""

    def successor(self) -> IProvider:
        """Another provider of the same machines, as after a restart of the router."""
        raise NotImplementedError

    async def kill(self, machine: Machine) -> None:
        """Let a machine's processes die without the provider's doing."""
        raise NotImplementedError

    async def a_while(self) -> None:
        """Let some time pass, until a test that waits has waited too long."""

    async def booted(self) -> tuple[Machine, Started]:
        """A fresh user's machine after its first boot."""
        machine = await self.made()
        return machine, await self.provider.start(machine, self.environment)

    async def made(self, machine: Machine | None = None) -> Machine:
        """The row of a machine, by default a fresh user's, that is provisioned."""
        return await made(self.provider, machine or somebody(), self.environment)

    async def state(self, machine: Machine) -> MachineState:
        """What the provider sees."""
        return (await self.provider.inspect(machine)).state

    async def refused(self, kind: type[ProviderError], machine: Machine) -> None:
        """A start fails in this way."""
        try:
            await self.provider.start(machine, self.environment)
        except kind:
            return
        raise self.failureException(f"{kind.__name__} was not raised")

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(IProvider, self.provider)

    # Making

    async def test_provisioning_makes_a_stopped_machine_once(self) -> None:
        machine = await self.made()
        assert machine.machine_id
        again = await self.made(machine)
        assert again.machine_id == machine.machine_id
        assert await self.state(machine) is MachineState.STOPPED

    async def test_each_user_has_a_machine_of_their_own(self) -> None:
        machines = [await self.made() for _ in range(3)]
        assert len({machine.machine_id for machine in machines}) == 3

    async def test_what_was_never_made_is_lost(self) -> None:
        machine = somebody()
        observed = await self.provider.inspect(machine)
        assert observed.state is MachineState.LOST
        assert observed.address is None
        await self.refused(MachineGone, machine)

    async def test_there_is_nothing_to_end_in_what_was_never_made(self) -> None:
        machine = somebody()
        await self.provider.suspend(machine)
        await self.provider.stop(machine)
        await self.provider.destroy(machine)
        assert await self.state(machine) is MachineState.LOST

    # Starting

    async def test_first_boot(self) -> None:
        machine, started = await self.booted()
        assert started.was is MachineState.PROVISIONING
        observed = await self.provider.inspect(machine)
        assert observed.state is MachineState.RUNNING
        assert (observed.address, observed.boot_id) == (started.address, started.boot_id)

    async def test_starting_what_runs_finds_it(self) -> None:
        machine, first = await self.booted()
        again = await self.provider.start(machine, self.environment)
        assert again == replace(first, was=MachineState.RUNNING)

    async def test_many_starts_at_once_are_one_boot(self) -> None:
        machine = await self.made()
        results = await gatherResults(
            [Deferred.fromCoroutine(self._start(machine)) for _ in range(20)]
        )
        assert len({(each.boot_id, each.address) for each in results}) == 1
        boots = [each for each in results if each.was is not MachineState.RUNNING]
        assert [each.was for each in boots] == [MachineState.PROVISIONING]

    async def test_many_machines_start_at_once(self) -> None:
        machines = [await self.made() for _ in range(5)]
        results = await gatherResults(
            [Deferred.fromCoroutine(self._start(machine)) for machine in machines]
        )
        assert len({each.boot_id for each in results}) == 5
        assert len({each.address for each in results}) == 5

    # Following

    async def test_what_was_started_is_heard_of(self) -> None:
        machine, started = await self.booted()
        seen = await self.provider.follow(replace(machine, address=started.address), False)
        assert seen.state is MachineState.RUNNING
        assert seen.address in (None, started.address)

    async def test_who_follows_a_machine_hears_of_its_end(self) -> None:
        machine, started = await self.booted()
        machine = replace(machine, address=started.address)
        following = Deferred.fromCoroutine(self.provider.follow(machine, True))
        await self.successor().stop(machine)
        seen = await following
        if seen.state is MachineState.RUNNING:  # it was looked at just before
            seen = await self.provider.follow(machine, True)
        assert seen.state is MachineState.STOPPED

    async def test_who_follows_what_is_gone_hears_so(self) -> None:
        machine, _ = await self.booted()
        await self.provider.destroy(machine)
        assert (await self.provider.follow(machine, True)).state is MachineState.LOST

    # Suspending

    async def test_a_resume_keeps_the_boot(self) -> None:
        machine, first = await self.booted()
        await self.provider.suspend(machine)
        assert await self.state(machine) is MachineState.SUSPENDED
        again = await self.provider.start(machine, self.environment)
        assert again == replace(first, was=MachineState.SUSPENDED)
        assert await self.state(machine) is MachineState.RUNNING

    async def test_suspending_twice_is_suspending(self) -> None:
        machine, _ = await self.booted()
        await self.provider.suspend(machine)
        await self.provider.suspend(machine)
        assert await self.state(machine) is MachineState.SUSPENDED

    async def test_suspending_what_is_stopped_leaves_it_so(self) -> None:
        machine, _ = await self.booted()
        await self.provider.stop(machine)
        await self.provider.suspend(machine)
        assert await self.state(machine) is MachineState.STOPPED

    # Calling it off

    async def test_what_is_called_off_in_time_runs_on(self) -> None:
        machine, first = await self.booted()
        recall = Recall()
        recall.ask()
        try:
            await self.provider.suspend(machine, recall)
        except Recalled:
            pass
        else:
            raise self.failureException("Recalled was not raised")
        assert not recall.begun
        again = await self.provider.start(machine, self.environment)
        assert again == replace(first, was=MachineState.RUNNING)

    async def test_once_begun_a_start_brings_it_back(self) -> None:
        machine, first = await self.booted()
        recall = Recall(lambda: recall.ask())
        await self.provider.suspend(machine, recall)
        assert recall.begun
        machine = replace(machine, state=MachineState.SUSPENDING)
        again = await self.provider.start(machine, self.environment)
        assert again == replace(first, was=MachineState.SUSPENDED)
        assert await self.state(machine) is MachineState.RUNNING

    async def test_nobody_need_call_it_off(self) -> None:
        machine, _ = await self.booted()
        recall = Recall()
        await self.provider.suspend(machine, recall)
        assert recall.begun
        assert await self.state(machine) is MachineState.SUSPENDED
        await self.provider.suspend(machine, Recall())

    # Ending

    async def test_a_start_after_a_stop_is_another_boot(self) -> None:
        machine, first = await self.booted()
        await self.provider.stop(machine)
        await self.provider.stop(machine)
        assert await self.state(machine) is MachineState.STOPPED
        again = await self.provider.start(machine, self.environment)
        assert again.was is MachineState.STOPPED
        assert again.boot_id != first.boot_id

    async def test_a_suspended_machine_can_be_stopped(self) -> None:
        machine, _ = await self.booted()
        await self.provider.suspend(machine)
        await self.provider.stop(machine)
        assert await self.state(machine) is MachineState.STOPPED

    async def test_destroying_leaves_nothing(self) -> None:
        machine, _ = await self.booted()
        await self.provider.destroy(machine)
        await self.provider.destroy(machine)
        assert await self.state(machine) is MachineState.LOST
        await self.refused(MachineGone, machine)
        old, machine = machine, await self.made(machine)
        assert machine.machine_id != old.machine_id
        assert (
            await self.provider.start(machine, self.environment)
        ).was is MachineState.PROVISIONING

    # Dying

    async def test_after_a_death_there_is_another_boot(self) -> None:
        machine, first = await self.booted()
        await self.kill(machine)
        while (seen := await self.provider.inspect(machine)).boot_id == first.boot_id:
            await self.a_while()
        assert seen.state in (MachineState.STOPPED, MachineState.RUNNING)
        again = await self.provider.start(machine, self.environment)
        assert again.boot_id != first.boot_id

    # Outliving the provider

    async def test_machines_outlive_their_provider(self) -> None:
        machine, first = await self.booted()
        asleep, second = await self.booted()
        await self.provider.suspend(asleep)
        await self.provider.close(stop_machines=False)
        self.provider = self.successor()
        again = await self.provider.start(machine, self.environment)
        assert again == replace(first, was=MachineState.RUNNING)
        again = await self.provider.start(asleep, self.environment)
        assert again == replace(second, was=MachineState.SUSPENDED)

    async def test_closing_can_stop_all(self) -> None:
        machine, _ = await self.booted()
        asleep, _ = await self.booted()
        await self.provider.suspend(asleep)
        told: list[UserId] = []
        self.provider.watch(told.append)
        await self.provider.close(stop_machines=True)
        self.provider = self.successor()
        assert await self.state(machine) is MachineState.STOPPED
        assert await self.state(asleep) is MachineState.STOPPED
        assert told == []

    async def test_a_closed_provider_starts_nothing(self) -> None:
        machine, _ = await self.booted()
        await self.provider.close(stop_machines=True)
        await self.provider.close(stop_machines=True)
        await self.refused(ProviderError, machine)
        self.provider = self.successor()

    async def _start(self, machine: Machine) -> Started:
        return await self.provider.start(machine, self.environment)


class TellsDeaths(ProviderContract):
    """For providers that are told when a machine's processes end."""

    async def until_told(self, told: list[UserId]) -> None:
        """Return once C{told} holds something; fail after a while."""
        raise NotImplementedError

    async def test_a_death_is_told_and_the_next_start_boots(self) -> None:
        told: list[UserId] = []
        self.provider.watch(told.append)
        machine, first = await self.booted()
        await self.kill(machine)
        await self.until_told(told)
        assert told == [machine.user_id]
        assert await self.state(machine) is MachineState.STOPPED
        again = await self.provider.start(machine, self.environment)
        assert again.was is MachineState.STOPPED
        assert again.boot_id != first.boot_id

    async def test_a_suspended_machine_may_die_too(self) -> None:
        told: list[UserId] = []
        self.provider.watch(told.append)
        machine, _ = await self.booted()
        await self.provider.suspend(machine)
        await self.kill(machine)
        await self.until_told(told)
        assert told == [machine.user_id]

    async def test_an_end_that_was_asked_for_is_no_death(self) -> None:
        told: list[UserId] = []
        self.provider.watch(told.append)
        stopped, _ = await self.booted()
        await self.provider.stop(stopped)
        destroyed, _ = await self.booted()
        await self.provider.destroy(destroyed)
        other, _ = await self.booted()
        await self.kill(other)
        await self.until_told(told)
        assert told == [other.user_id]

    async def test_the_death_of_an_adopted_machine_is_told(self) -> None:
        machine, _ = await self.booted()
        await self.provider.close(stop_machines=False)
        self.provider = self.successor()
        told: list[UserId] = []
        self.provider.watch(told.append)
        assert await self.state(machine) is MachineState.RUNNING
        await self.kill(machine)
        await self.until_told(told)
        assert told == [machine.user_id]
