"""The contracts of the routers' housekeeping as tests: every directory passes them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import uuid4

from twisted.internet.defer import ensureDeferred as deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from matrix.directory import IDuties, IPaces, IRoll, IStrays
from matrix.model import Machine, MachineState, Stray, User, UserId
from matrix.testing.directory_suite import DirectoryCase, anybody

S = MachineState


class HousekeepingContract(DirectoryCase):
    """Mix into a trial C{TestCase} that is a L{DirectoryCase}."""

    def now(self) -> float:
        """The unix time, as the directory tells it."""
        return time.time()

    async def let_pass(self, seconds: float) -> None:
        """Let time pass, as duties, paces and strays know it."""
        raise NotImplementedError

    async def resident(self, **fields: object) -> Machine:
        """The machine of a fresh user."""
        who = anybody()
        await self.directory.admit(who, "")
        machine = await self.directory.create_machine(who, "local")
        return await self.directory.change(machine, **fields) if fields else machine

    async def test_provides_the_interfaces(self) -> None:
        assert verifyObject(IRoll, self.directory.roll)
        assert verifyObject(IStrays, self.directory.strays)
        assert verifyObject(IDuties, self.directory.duties)
        assert verifyObject(IPaces, self.directory.paces)

    # rows in bulk

    async def test_rows_of_many_users(self) -> None:
        first, second = await self.resident(), await self.resident()
        await self.resident()
        found = await self.directory.roll.of([first.user_id, anybody(), second.user_id])
        assert found == {one.user_id: one for one in (first, second)}
        assert not await self.directory.roll.of([])

    async def test_pages_of_rows_in_some_states(self) -> None:
        rows = [await self.resident(state=S.RUNNING) for _ in range(5)]
        rows += [await self.resident(state=S.STARTING)]
        await self.resident(state=S.SUSPENDED)
        rows.sort(key=lambda row: row.user_id)
        roll, seen = self.directory.roll, list[Machine]()
        while page := await roll.in_states(
            "local", (S.RUNNING, S.STARTING), seen[-1].user_id if seen else None, limit=4
        ):
            seen += page
        assert seen == rows
        assert not await roll.in_states("fly", (S.RUNNING,))

    async def test_rows_that_name_a_machine_or_a_volume(self) -> None:
        roll = self.directory.roll
        names = ("machine_id", "volume_id", "former_machine_id", "former_volume_id")
        made = [await self.resident(**{name: f"{name}-1"}) for name in names]
        await self.resident()
        made.sort(key=lambda row: row.user_id)
        told = [
            (row.user_id, row.state, row.region, *(getattr(row, name) for name in names))
            for row in made
        ]
        assert list(await roll.made("local")) == told
        assert list(await roll.made("local", made[0].user_id, 2)) == told[1:3]
        assert not await roll.made("fly")
        for name in names:
            assert [getattr(row, name) for row in await roll.naming(f"{name}-1")] == [f"{name}-1"]
        assert not await roll.naming("another")

    async def test_counts(self) -> None:
        for state in (S.RUNNING, S.RUNNING, S.LOST):
            await self.resident(state=state)
        assert await self.directory.roll.counts() == {S.RUNNING: 2, S.LOST: 1}

    async def used(self, ago: float | None, own: float | None = None, **fields: object) -> UserId:
        """Somebody whose running machine was last used so many seconds ago."""
        machine = await self.resident(state=S.RUNNING, **fields)
        if ago is not None:
            await self.directory.touch({machine.user_id: self.now() - ago})
        if own is not None:
            await self.put_user(User(machine.user_id, "", idle_timeout=own))
        return machine.user_id

    async def overdue(self) -> set[UserId]:
        return {row.user_id for row in await self.directory.roll.overdue("local", 100.0)}

    async def test_overdue_is_what_ran_unused_for_too_long(self) -> None:
        long_ago, just_now = await self.used(110.0), await self.used(90.0)
        assert await self.overdue() == {long_ago}
        asleep = await self.directory.machine(long_ago)
        assert asleep is not None
        await self.directory.change(asleep, state=S.SUSPENDED)
        assert await self.overdue() == set()
        await self.directory.touch({just_now: self.now()})
        assert not await self.directory.roll.overdue("fly", 0.0)

    async def test_those_with_more_time_are_overdue_later(self) -> None:
        await self.used(110.0, own=200.0)
        late = await self.used(210.0, own=200.0)
        short = await self.used(110.0, own=5.0)
        assert await self.overdue() == {late, short}

    async def test_one_that_was_never_used_is_overdue_from_its_wake(self) -> None:
        woken = datetime.fromtimestamp(self.now() - 110, UTC)
        never = await self.used(None, last_wake_at=woken)
        await self.used(None, last_wake_at=datetime.fromtimestamp(self.now() - 90, UTC))
        assert await self.overdue() == {never}

    # strays

    def stray(self, **fields: object) -> Stray:
        """One that no other test has."""
        values = {
            "id": uuid4().hex, "kind": "machine", "provider": "fly", "app": "users", "name": "u-1",
            "region": "fra", "user_id": anybody(), "reason": "no row", "ours": True,
        }  # fmt: skip
        return Stray(**{**values, **fields})  # type: ignore[arg-type]

    async def test_a_stray_keeps_the_time_it_was_seen_first(self) -> None:
        strays, stray, other = self.directory.strays, self.stray(), self.stray(user_id=None)
        [new] = await strays.note([stray])
        assert new.first_seen == new.last_seen is not None
        await self.let_pass(50.0)
        old, fresh = await strays.note([stray, other])
        assert (old.id, fresh.id) == (stray.id, other.id)
        assert old.first_seen is not None
        assert old.last_seen is not None
        assert 49 < (old.last_seen - old.first_seen).total_seconds() < 60
        assert fresh.first_seen == fresh.last_seen
        assert sorted([old.id, fresh.id]) == [one.id for one in await strays.all()]
        assert not await strays.note([])

    async def test_what_is_seen_no_more_is_forgotten_unless_its_region_is_dark(self) -> None:
        strays = self.directory.strays
        kept, gone, dark = self.stray(), self.stray(), self.stray(region="ams")
        other = self.stray(provider="local")
        await strays.note([kept, gone, dark, other])
        over = await strays.settle("fly", [kept.id], ["ams"])
        assert [one.id for one in over] == [gone.id]
        assert {one.id for one in await strays.all()} == {kept.id, dark.id, other.id}
        await strays.settle("fly", [], [])
        assert [one.id for one in await strays.all()] == [other.id]

    async def test_strays_in_pages_and_one_removed(self) -> None:
        strays = self.directory.strays
        found = [self.stray() for _ in range(5)]
        await strays.note(found)
        ids = sorted(one.id for one in found)
        first = await strays.all(limit=3)
        assert [one.id for one in [*first, *await strays.all(first[-1].id)]] == ids
        await strays.remove(ids[0])
        await strays.remove("unknown")
        assert [one.id for one in await strays.all()] == ids[1:]

    # duties

    async def test_a_duty_is_one_routers_until_its_lease_is_over(self) -> None:
        duties = self.directory.duties
        assert await duties.claim("sweep", "a", 60)
        assert not await duties.claim("sweep", "b", 60)
        assert await duties.claim("sweep", "a", 60), "it goes on"
        assert await duties.claim("dust", "b", 60), "another duty"
        await self.let_pass(61.0)
        assert await duties.claim("sweep", "b", 60)
        assert not await duties.claim("sweep", "a", 60)

    async def test_a_duty_that_was_done_is_due_again_after_a_while(self) -> None:
        duties = self.directory.duties
        assert await duties.claim("sweep", "a", 60, every=30)
        await duties.release("sweep", "b", done=True)
        assert not await duties.claim("sweep", "b", 60, every=30), "it was not b's"
        await duties.release("sweep", "a", done=True)
        for owner in "ab":
            assert not await duties.claim("sweep", owner, 60, every=30)
        await self.let_pass(31.0)
        assert await duties.claim("sweep", "b", 60, every=30)

    async def test_a_duty_that_was_given_up_is_due_at_once(self) -> None:
        duties = self.directory.duties
        assert await duties.claim("sweep", "a", 60, every=30)
        await duties.release("sweep", "a", done=False)
        assert await duties.claim("sweep", "b", 60, every=30)

    async def test_of_many_who_claim_a_duty_at_once_one_has_it(self) -> None:
        claims = [deferred(self.directory.duties.claim("sweep", str(n), 60)) for n in range(12)]
        assert sorted(await gatherResults(claims))[-2:] == [False, True]

    # paces

    async def turns(self, count: int) -> list[float]:
        return [await self.directory.paces.turn("make", 0.1, 3) for _ in range(count)]

    async def test_turns_come_at_their_pace_after_a_burst(self) -> None:
        waits = await self.turns(5)
        assert waits[:3] == [0.0, 0.0, 0.0]
        for wait, expected in zip(waits[3:], (10, 20), strict=True):
            assert expected - 2 < wait <= expected
        await self.let_pass(100.0)
        assert (await self.turns(4))[:3] == [0.0, 0.0, 0.0], "more are not saved up"

    async def test_nobody_has_a_turn_while_it_is_held(self) -> None:
        paces = self.directory.paces
        await paces.hold("make", 40.0)
        [wait] = await self.turns(1)
        assert 38 < wait <= 40
        await paces.hold("make", 1.0)
        [wait] = await self.turns(1)
        assert 48 < wait <= 50, "not sooner for it"
        assert await paces.turn("other", 1.0, 1) == 0.0
