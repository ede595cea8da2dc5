"""The contract of L{IBusy} as tests: every directory passes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from zope.interface.verify import verifyObject

from matrix.directory import IBusy, StaleRow, UnknownUser
from matrix.model import Machine, MachineState, User, UserId, UserState
from matrix.testing.directory_suite import DirectoryCase, anybody

HOUR = 3600.0


class BusyContract(DirectoryCase):
    """Mix into a trial C{TestCase} that is a L{DirectoryCase}."""

    @property
    def busy(self) -> IBusy:
        return self.directory.busy

    def now(self) -> float:
        """The directory's unix time."""
        raise NotImplementedError

    async def let_pass(self, seconds: float) -> None:
        """Let time pass, as the directory tells it."""
        raise NotImplementedError

    async def somebody(self, state: MachineState = MachineState.RUNNING) -> Machine:
        """The machine of a fresh user, just woken."""
        who = anybody()
        await self.directory.admit(who, f"{who}@example.org")
        machine = await self.directory.create_machine(who, "local")
        at = datetime.fromtimestamp(self.now(), UTC)
        return await self.directory.change(
            machine, state=state, suspend_cause="idle", last_wake_at=at
        )

    async def generation(self, who: UserId) -> int:
        machine = await self.directory.machine(who)
        assert machine is not None
        return machine.generation

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(IBusy, self.busy)

    async def test_a_lease_is_told_of_until_it_ends(self) -> None:
        who = (await self.somebody()).user_id
        busy = await self.busy.hold(who, "indexing", 60.0, HOUR)
        assert (busy.user_id, busy.reason) == (who, "indexing")
        assert busy.until - busy.since == timedelta(seconds=60)
        assert abs(busy.since.timestamp() - self.now()) < 30
        assert await self.busy.of([who, anybody()]) == {who: busy}
        assert await self.busy.end(who)
        assert await self.busy.of([who]) == {}
        assert not await self.busy.end(who)

    async def test_of_nobody_is_nothing(self) -> None:
        assert await self.busy.of([]) == {}

    async def test_a_lease_ends_by_itself(self) -> None:
        who = (await self.somebody()).user_id
        await self.busy.hold(who, "indexing", 60.0, HOUR)
        await self.let_pass(61)
        assert await self.busy.of([who]) == {}
        assert not await self.busy.end(who)

    async def test_each_call_sets_the_end_anew(self) -> None:
        who = (await self.somebody()).user_id
        await self.busy.hold(who, "indexing", 600.0, HOUR)
        busy = await self.busy.hold(who, "training", 60.0, HOUR)
        assert busy.reason == "training"
        assert timedelta(seconds=60) <= busy.until - busy.since < timedelta(seconds=90)
        assert await self.busy.of([who]) == {who: busy}

    async def test_it_is_busy_since_the_first_of_several_without_a_pause(self) -> None:
        who = (await self.somebody()).user_id
        await self.busy.hold(who, "indexing", 60.0, HOUR)
        await self.let_pass(50)
        busy = await self.busy.hold(who, "indexing", 60.0, HOUR)
        assert busy.until - busy.since >= timedelta(seconds=110)
        await self.let_pass(70)
        busy = await self.busy.hold(who, "indexing", 60.0, HOUR)
        assert busy.until - busy.since == timedelta(seconds=60)

    async def test_the_first_is_an_event(self) -> None:
        who = (await self.somebody()).user_id
        await self.busy.hold(who, "indexing", 60.0, HOUR)
        await self.busy.hold(who, "indexing", 60.0, HOUR)
        [event] = await self.directory.events(who)
        assert (event.kind, event.cause) == ("busy", "indexing")
        assert event.detail == {"seconds": 60.0}

    async def test_who_puts_it_to_sleep_finds_that_out(self) -> None:
        for state in (MachineState.RUNNING, MachineState.DRAINING):
            machine = await self.somebody(state)
            await self.busy.hold(machine.user_id, "indexing", 60.0, HOUR)
            await self.raises(StaleRow, self.directory.change(machine, address=None))

    async def test_a_lease_that_goes_on_is_no_news(self) -> None:
        machine = await self.somebody()
        await self.busy.hold(machine.user_id, "indexing", 60.0, HOUR)
        before = await self.generation(machine.user_id)
        await self.busy.hold(machine.user_id, "indexing", 60.0, HOUR)
        assert await self.generation(machine.user_id) == before

    async def test_it_holds_off_nothing_else(self) -> None:
        """Neither a wake under way, nor a sleep by somebody's will or beyond recall."""
        machine = await self.somebody(MachineState.DRAINING)
        others = [
            await self.directory.change(machine, suspend_cause="operator"),
            await self.somebody(MachineState.STARTING),
            await self.somebody(MachineState.SUSPENDING),
            await self.somebody(MachineState.SUSPENDED),
        ]
        for other in others:
            await self.busy.hold(other.user_id, "indexing", 60.0, HOUR)
            assert await self.generation(other.user_id) == other.generation

    async def test_nor_anything_after_too_long_without_use(self) -> None:
        machine = await self.somebody(MachineState.DRAINING)
        await self.let_pass(HOUR)
        at = datetime.fromtimestamp(self.now() - HOUR - 1, UTC)
        machine = await self.directory.change(machine, last_wake_at=at)
        await self.busy.hold(machine.user_id, "indexing", 60.0, HOUR)
        assert await self.generation(machine.user_id) == machine.generation

    async def test_of_those_who_may_not_come_in_there_is_none(self) -> None:
        await self.raises(UnknownUser, self.busy.hold(anybody(), "indexing", 60.0, HOUR))
        machine = await self.somebody()
        user = await self.directory.user(machine.user_id)
        assert isinstance(user, User)
        await self.put_user(replace(user, state=UserState.BLOCKED))
        await self.raises(UnknownUser, self.busy.hold(user.id, "indexing", 60.0, HOUR))
        assert await self.busy.of([user.id]) == {}
