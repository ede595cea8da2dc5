"""The contract of L{IAwake} as tests: every directory passes them."""

from __future__ import annotations

from zope.interface.verify import verifyObject

from matrix.directory import IAwake
from matrix.directory.awake import FOUND, KEPT_DAYS
from matrix.model import Machine, MachineState, UserId
from matrix.testing.directory_suite import DirectoryCase, anybody

HOUR = 3600.0
DAY = 24 * HOUR

SLACK = 30.0
"""Seconds that pass of themselves while a test runs, on a host that does much else."""


class AwakeContract(DirectoryCase):
    """Mix into a trial C{TestCase} that is a L{DirectoryCase}."""

    @property
    def awake(self) -> IAwake:
        return self.directory.awake

    async def let_pass(self, seconds: float) -> None:
        """Let time pass, as the directory tells it."""
        raise NotImplementedError

    async def asleep(self, user_id: UserId | None = None) -> Machine:
        """Somebody's machine, which sleeps."""
        user_id = user_id or anybody()
        await self.directory.admit(user_id, "")
        machine = await self.directory.create_machine(user_id, "local")
        return await self.directory.change(machine, state=MachineState.SUSPENDED)

    async def up(self, machine: Machine, cause: str = "request") -> Machine:
        """Let it be woken."""
        change = self.directory.change
        machine = await change(machine, state=MachineState.STARTING, wake_cause=cause)
        return await change(machine, state=MachineState.RUNNING)

    async def down(self, machine: Machine) -> Machine:
        """Let it fall asleep."""
        change = self.directory.change
        machine = await change(machine, state=MachineState.DRAINING)
        machine = await change(machine, state=MachineState.SUSPENDING)
        return await change(machine, state=MachineState.SUSPENDED)

    def assert_seconds(self, found: float, wanted: float) -> None:
        assert wanted - 0.01 <= found <= wanted + SLACK, (found, wanted)

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(IAwake, self.awake)

    async def test_what_was_never_awake(self) -> None:
        machine = await self.asleep()
        found = await self.awake.of_user(machine.user_id, 7)
        assert (found.seconds, found.wakes, found.now) == ({}, {}, None)
        assert machine.user_id not in {each.user_id for each in await self.awake.top(7, 1000)}

    async def test_a_machine_is_awake_from_its_start_to_its_rest(self) -> None:
        user_id = anybody()
        machine = await self.asleep(user_id)
        machine = await self.up(machine)
        await self.let_pass(100.0)
        found = await self.awake.of_user(user_id, 1000)
        assert found.now is not None
        assert found.now.cause == "request"
        self.assert_seconds(found.seconds["request"], 100.0)
        machine = await self.down(machine)
        await self.let_pass(1000.0)
        found = await self.awake.of_user(user_id, 1000)
        assert found.now is None
        self.assert_seconds(found.seconds["request"], 100.0)
        assert found.wakes == {"request": 1}

    async def test_seconds_and_wakes_go_by_cause(self) -> None:
        machine = await self.asleep()
        for cause, seconds in (("request", 10.0), ("alarm", 200.0), ("request", 50.0)):
            machine = await self.up(machine, cause)
            await self.let_pass(seconds)
            machine = await self.down(machine)
        found = await self.awake.of_user(machine.user_id, 1000)
        assert found.wakes == {"request": 2, "alarm": 1}
        self.assert_seconds(found.seconds["request"], 60.0)
        self.assert_seconds(found.seconds["alarm"], 200.0)

    async def test_a_suspend_that_was_called_off_ends_nothing(self) -> None:
        machine = await self.up(await self.asleep())
        machine = await self.directory.change(machine, state=MachineState.DRAINING)
        await self.directory.change(machine, state=MachineState.RUNNING)
        assert (await self.awake.of_user(machine.user_id, 2)).wakes == {"request": 1}

    async def test_a_machine_that_died_is_not_awake(self) -> None:
        for state in (MachineState.FAILED, MachineState.LOST, MachineState.STOPPED):
            machine = await self.up(await self.asleep())
            await self.directory.change(machine, state=state)
            assert (await self.awake.of_user(machine.user_id, 2)).now is None

    async def test_a_machine_that_is_found_running_was_woken_by_nobody_known(self) -> None:
        machine = await self.asleep()
        await self.directory.change(machine, state=MachineState.RUNNING)
        found = await self.awake.of_user(machine.user_id, 2)
        assert found.wakes == {FOUND: 1}

    async def test_other_changes_of_a_row_count_nothing(self) -> None:
        machine = await self.up(await self.asleep())
        await self.directory.change(machine, boot_id="b", wake_cause="another")
        await self.directory.touch({machine.user_id: 1_795_000_000.0})
        found = await self.awake.of_user(machine.user_id, 2)
        assert found.wakes == {"request": 1}
        assert found.now is not None
        assert found.now.cause == "request"

    async def test_the_longest_come_first(self) -> None:
        short, long = await self.up(await self.asleep()), await self.up(await self.asleep())
        await self.let_pass(HOUR)
        await self.down(short)
        await self.let_pass(HOUR)
        top = [each.user_id for each in await self.awake.top(1000, 1000)]
        assert top.index(long.user_id) < top.index(short.user_id)
        assert len(await self.awake.top(1000, 1)) == 1

    async def test_only_the_days_that_are_asked_for_count(self) -> None:
        machine = await self.up(await self.asleep())
        await self.let_pass(50.0)
        machine = await self.down(machine)
        await self.let_pass(10 * DAY)
        assert (await self.awake.of_user(machine.user_id, 3)).seconds == {}
        assert machine.user_id not in {each.user_id for each in await self.awake.top(3, 1000)}
        self.assert_seconds((await self.awake.of_user(machine.user_id, 12)).seconds["request"], 50)

    async def test_a_long_spell_is_counted_on_each_of_its_days(self) -> None:
        machine = await self.up(await self.asleep())
        await self.let_pass(5 * DAY)
        going_on = (await self.awake.of_user(machine.user_id, 2)).seconds["request"]
        await self.down(machine)
        over = (await self.awake.of_user(machine.user_id, 2)).seconds["request"]
        assert DAY <= going_on <= 2 * DAY
        assert going_on - 0.01 <= over <= going_on + SLACK

    async def test_the_fleet_is_the_sum_of_all(self) -> None:
        cause = anybody()  # that no other test has
        first, second = await self.asleep(), await self.asleep()
        first, second = await self.up(first, cause), await self.up(second, cause)
        await self.let_pass(100.0)
        found = (await self.awake.fleet())[cause]
        assert found.machines == 2
        assert 200.0 - 0.01 <= found.seconds <= 200.0 + 2 * SLACK
        await self.down(first)
        await self.let_pass(100.0)
        found = (await self.awake.fleet())[cause]
        assert found.machines == 1
        assert 300.0 - 0.01 <= found.seconds <= 300.0 + 2 * SLACK

    async def test_a_row_that_is_deleted_ends_it(self) -> None:
        machine = await self.up(await self.asleep())
        await self.drop_machine(machine.user_id)
        assert (await self.awake.of_user(machine.user_id, 2)).now is None

    async def test_old_days_are_forgotten(self) -> None:
        machine = await self.up(await self.asleep())
        machine = await self.down(machine)
        await self.let_pass((KEPT_DAYS - 1) * DAY)
        assert await self.awake.purge() == 0
        await self.let_pass(2 * DAY)
        assert await self.awake.purge() >= 1
        assert (await self.awake.of_user(machine.user_id, 1000)).wakes == {}
