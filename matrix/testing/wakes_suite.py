"""The contract of L{IWakes} as tests: every directory passes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.internet.defer import ensureDeferred as deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from matrix.directory import IWakes, Past, StaleRow
from matrix.model import Machine, MachineState, UserState
from matrix.testing.directory_suite import DirectoryCase, anybody

CLAIM: dict[str, object] = {
    "state": MachineState.STARTING,
    "wake_cause": "request",
    "lease_owner": "router:1",
    "lease_expires_at": datetime(2126, 1, 1, tzinfo=UTC),
}


class WakesContract(DirectoryCase):
    """Mix into a trial C{TestCase} that is a L{DirectoryCase}."""

    @property
    def wakes(self) -> IWakes:
        return self.directory.wakes

    async def somebody(self) -> Machine:
        """The machine of a fresh user."""
        who = anybody()
        await self.directory.admit(who, f"{who}@example.org")
        return await self.directory.create_machine(who, "local")

    async def asleep(self) -> Machine:
        """The sleeping machine of a fresh user."""
        machine = await self.somebody()
        return await self.directory.change(machine, state=MachineState.SUSPENDED, machine_id="m1")

    async def woken(self, machine: Machine, was: str, start_ms: float, ready_ms: float) -> None:
        detail = {"was": was, "start_ms": start_ms, "ready_ms": ready_ms}
        await self.directory.record(machine.user_id, "wake", "request", detail)

    async def past(self, machine: Machine) -> Past:
        return (await self.wakes.find(machine.user_id)).past

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(IWakes, self.wakes)

    async def test_of_somebody_unknown_there_is_nothing(self) -> None:
        found = await self.wakes.find(anybody())
        assert (found.user, found.machine, found.past) == (None, None, Past())

    async def test_a_user_without_a_machine(self) -> None:
        who = anybody()
        user = await self.directory.admit(who, "a@example.org")
        found = await self.wakes.find(who)
        assert (found.user, found.machine) == (user, None)

    async def test_user_and_machine_are_found_together(self) -> None:
        machine = await self.somebody()
        found = await self.wakes.find(machine.user_id)
        assert found.machine == machine
        assert found.user == await self.directory.user(machine.user_id)

    async def test_a_machine_that_sleeps_is_claimed_as_it_is_found(self) -> None:
        machine = await self.asleep()
        found = await self.wakes.find(machine.user_id, CLAIM)
        assert found.claimed
        assert found.machine == await self.directory.machine(machine.user_id)
        assert found.machine is not None
        assert found.machine.generation == machine.generation + 1
        assert found.machine.state is MachineState.STARTING
        assert found.machine.lease_owner == "router:1"
        again = await self.wakes.find(machine.user_id, CLAIM)
        assert (again.claimed, again.machine) == (False, found.machine)

    async def test_of_many_who_want_it_one_has_it(self) -> None:
        machine = await self.asleep()
        claims = [{**CLAIM, "lease_owner": f"router:{number}"} for number in range(10)]
        calls = [deferred(self.wakes.find(machine.user_id, claim)) for claim in claims]
        found = await gatherResults(calls, consumeErrors=True)
        assert sum(each.claimed for each in found) == 1

    async def test_only_what_sleeps_and_nobody_has_in_hand_is_claimed(self) -> None:
        fresh = await self.somebody()
        assert not (await self.wakes.find(fresh.user_id, CLAIM)).claimed
        machine = await self.asleep()
        later = datetime.now(UTC) + timedelta(minutes=1)
        machine = await self.directory.change(
            machine, lease_owner="router:2", lease_expires_at=later
        )
        found = await self.wakes.find(machine.user_id, CLAIM)
        assert (found.claimed, found.machine) == (False, machine)
        assert not (await self.wakes.find(anybody(), CLAIM)).claimed

    async def test_nothing_is_claimed_for_who_may_not_come_in(self) -> None:
        machine = await self.asleep()
        await self.directory.set_user_state(machine.user_id, UserState.BLOCKED)
        found = await self.wakes.find(machine.user_id, CLAIM)
        assert (found.claimed, found.machine) == (False, machine)

    async def test_wakes_are_told_newest_first_with_what_they_took(self) -> None:
        machine = await self.somebody()
        await self.woken(machine, "provisioning", 4000, 500.5)
        await self.directory.record(machine.user_id, "suspend", "idle")
        await self.woken(machine, "suspended", 250, 50)
        assert await self.past(machine) == Past((("suspended", 0.3), ("provisioning", 4.5005)))

    async def test_a_wake_of_which_nothing_was_noted_teaches_nothing(self) -> None:
        machine = await self.somebody()
        await self.directory.record(machine.user_id, "wake", "request", {"start_ms": "soon"})
        assert (await self.past(machine)).wakes == ()

    async def test_failures_since_the_last_wake_are_counted(self) -> None:
        machine = await self.somebody()
        await self.directory.record(machine.user_id, "failed", "wake", {"reason": "full"})
        await self.woken(machine, "stopped", 1000, 0)
        assert (await self.past(machine)).failures == 0
        for _ in range(3):
            await self.directory.record(machine.user_id, "failed", "wake", {"reason": "full"})
        await self.directory.record(machine.user_id, "failed", "snapshot")
        past = await self.past(machine)
        assert past.failures == 3
        assert 0 <= past.failed_ago < 30

    async def test_others_events_are_theirs(self) -> None:
        machine, other = await self.somebody(), await self.somebody()
        await self.woken(other, "suspended", 300, 0)
        assert await self.past(machine) == Past()

    async def test_a_change_and_its_event_are_one(self) -> None:
        machine = await self.somebody()
        changed = await self.wakes.change(
            machine, "wake", "request", {"was": "stopped"}, state=MachineState.RUNNING
        )
        assert changed == await self.directory.machine(machine.user_id)
        assert (changed.state, changed.generation) == (
            MachineState.RUNNING,
            machine.generation + 1,
        )
        [event] = await self.directory.events(machine.user_id)
        assert (event.kind, event.cause, event.detail) == ("wake", "request", {"was": "stopped"})

    async def test_who_was_too_late_leaves_neither(self) -> None:
        machine = await self.somebody()
        await self.directory.change(machine, wake_cause="other")
        try:
            await self.wakes.change(machine, "wake", "request", {}, state=MachineState.RUNNING)
        except StaleRow:
            pass
        else:
            raise AssertionError("it was another generation's")
        found = await self.directory.machine(machine.user_id)
        assert found is not None
        assert found.state is MachineState.PROVISIONING
        assert await self.directory.events(machine.user_id) == []

    async def test_only_attributes_of_a_machine_can_be_changed(self) -> None:
        machine = await self.somebody()
        await self.raises(TypeError, self.wakes.change(machine, "wake", "x", {}, generation=7))
