"""The contract of L{IUpkeep} as tests: every implementation passes all of them."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred as deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from matrix.directory import Chore, Erasing, IUpkeep, Upkeep
from matrix.model import User, UserId, UserState
from matrix.testing.directory_suite import DirectoryCase, anybody

DAY = 86400.0
LONG = 10 * DAY
"""After so long everything has come due once."""
LEASE = 60.0


class UpkeepContract(DirectoryCase):
    """Mix into a trial C{TestCase} that is a L{DirectoryCase}."""

    @property
    def upkeep(self) -> IUpkeep:
        return self.directory.upkeep

    async def let_pass(self, seconds: float) -> None:
        """Let time pass, as the directory tells it."""
        raise NotImplementedError

    async def resident(self) -> UserId:
        """A user with a machine, for whom everything is due."""
        who = anybody()
        await self.directory.admit(who, f"{who}@example.org")
        await self.directory.create_machine(who, "local")
        await self.let_pass(LONG)
        return who

    async def row(self, who: UserId) -> Upkeep:
        """A user's row."""
        found = await self.upkeep.find(who)
        assert found is not None
        return found

    async def delete(self, who: UserId) -> None:
        """Delete a user."""
        await self.directory.set_user_state(who, UserState.DELETED)

    async def thinned(self, who: UserId, mark: str = "mark") -> None:
        """What there is of the user was thinned out."""
        claimed = await self.upkeep.claim(Chore.THIN, "a", LEASE)
        assert claimed is not None
        assert claimed.user_id == who
        assert await self.upkeep.done(who, "a", Chore.THIN, DAY, {"mark": mark})

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(IUpkeep, self.upkeep)

    async def test_a_machine_begins_it(self) -> None:
        who = anybody()
        await self.directory.admit(who, "")
        assert await self.upkeep.find(who) is None
        assert await self.upkeep.claim(Chore.THIN, "a", LEASE) is None
        await self.directory.create_machine(who, "local")
        assert await self.row(who) == Upkeep(who)

    async def test_who_waits_longest_comes_first(self) -> None:
        for chore in (Chore.THIN, Chore.SCRUB):
            one, other = await self.resident(), await self.resident()
            claims = [await self.upkeep.claim(chore, "a", LEASE) for _ in range(3)]
            assert {claim.user_id for claim in claims if claim} == {one, other}
            assert claims[2] is None
            facts = {"mark": "m"} if chore is Chore.THIN else {}
            assert await self.upkeep.done(one, "a", chore, 2 * DAY, facts)
            assert await self.upkeep.done(other, "a", chore, DAY, facts)
            assert await self.upkeep.claim(chore, "a", LEASE) is None
            await self.let_pass(3 * DAY)
            first = await self.upkeep.claim(chore, "a", LEASE)
            assert first is not None
            assert first.user_id == other
            for who in (one, other):
                await self.put_user(User(who, "", UserState.DELETED))  # out of the way

    async def test_of_many_at_once_one_has_the_user(self) -> None:
        await self.resident()
        claims = [deferred(self.upkeep.claim(Chore.THIN, f"r{n}", LEASE)) for n in range(20)]
        assert sum(claim is not None for claim in await gatherResults(claims)) == 1
        assert await self.upkeep.claim(Chore.SCRUB, "other", LEASE) is None, "one pair of hands"

    async def test_a_claim_is_ones_own_until_it_is_over(self) -> None:
        who = await self.resident()
        assert await self.upkeep.claim(Chore.THIN, "a", LEASE) is not None
        assert await self.upkeep.hold(who, "a", LEASE)
        assert not await self.upkeep.hold(who, "b", LEASE)
        await self.let_pass(LEASE + 1)
        assert await self.upkeep.claim(Chore.THIN, "b", LEASE) is not None, "a is gone"
        assert not await self.upkeep.hold(who, "a", LEASE)
        assert not await self.upkeep.done(who, "a", Chore.THIN, DAY, {"mark": "x"})
        assert not await self.upkeep.failed(who, "a", Chore.THIN, DAY, "why")
        assert (await self.row(who)).thinned_at is None

    async def test_what_came_of_it_is_on_record(self) -> None:
        who = await self.resident()
        await self.thinned(who)
        assert await self.upkeep.claim(Chore.SCRUB, "a", LEASE) is not None
        assert await self.upkeep.done(who, "a", Chore.SCRUB, DAY, {})
        row = await self.row(who)
        assert row.mark == "mark"
        assert row.thinned_at is not None
        assert row.scrubbed_at is not None
        assert (row.trouble, row.failures) == (None, 0)

    async def test_failures_are_counted_and_shown(self) -> None:
        who = await self.resident()
        for number in range(1, 3):
            assert await self.upkeep.claim(Chore.THIN, "a", LEASE) is not None
            assert await self.upkeep.failed(who, "a", Chore.THIN, DAY, f"reason {number}")
            assert await self.upkeep.claim(Chore.THIN, "a", LEASE) is None
            await self.let_pass(DAY + 1)
        row = await self.row(who)
        assert (row.trouble, row.trouble_of, row.failures) == ("reason 2", "thin", 2)
        assert list(await self.upkeep.troubled()) == [row]
        assert await self.upkeep.claim(Chore.THIN, "a", LEASE) is not None
        assert await self.upkeep.put_off(who, "a", Chore.THIN, DAY)
        assert await self.row(who) == row, "that was nobody's fault"
        assert await self.upkeep.claim(Chore.SCRUB, "a", LEASE) is not None
        assert await self.upkeep.done(who, "a", Chore.SCRUB, LONG, {})
        assert (await self.row(who)).trouble == "reason 2", "that was something else"
        await self.let_pass(DAY + 1)
        await self.thinned(who)
        row = await self.row(who)
        assert (row.trouble, row.trouble_of, row.failures) == (None, None, 0)
        assert list(await self.upkeep.troubled()) == []

    async def test_one_drill_in_a_spell(self) -> None:
        one, other, empty = [await self.resident() for _ in range(3)]
        for mark in ("some", "some", ""):
            claimed = await self.upkeep.claim(Chore.THIN, "a", LEASE)
            assert claimed is not None
            mark = "" if claimed.user_id == empty else "some"
            await self.upkeep.done(claimed.user_id, "a", Chore.THIN, DAY, {"mark": mark})
        drilled = set()
        for number in range(2):
            claimed = await self.upkeep.claim(Chore.DRILL, "a", LEASE, DAY)
            assert claimed is not None
            drilled.add(claimed.user_id)
            if number:
                await self.upkeep.failed(claimed.user_id, "a", Chore.DRILL, DAY, "it was empty")
                assert (await self.row(claimed.user_id)).drill_seconds is None
            else:
                facts = {"drill_seconds": 2.5, "drill_bytes": 1 << 40}
                assert await self.upkeep.done(claimed.user_id, "a", Chore.DRILL, DAY, facts)
                row = await self.row(claimed.user_id)
                assert (row.drill_seconds, row.drill_bytes) == (2.5, 1 << 40)
            assert await self.upkeep.claim(Chore.DRILL, "a", LEASE, DAY) is None, "enough"
            await self.let_pass(DAY + 1)
        assert drilled == {one, other}, "each in turn, and none of whom there is nothing"

    async def test_the_data_of_the_deleted_are_erased_after_a_while(self) -> None:
        who = await self.resident()
        await self.delete(who)
        assert (await self.row(who)).deleted_at is not None
        assert await self.upkeep.claim(Chore.THIN, "a", LEASE) is None
        assert await self.upkeep.claim(Chore.ERASE, "a", LEASE, DAY) is None
        await self.let_pass(DAY + 1)
        claimed = await self.upkeep.claim(Chore.ERASE, "a", LEASE, DAY)
        assert claimed is not None
        assert claimed.erasing_at is not None
        assert await self.upkeep.done(who, "a", Chore.ERASE, DAY, {"erased": False})
        assert await self.upkeep.claim(Chore.ERASE, "a", LEASE, DAY) is None, "again, but later"
        await self.let_pass(DAY + 1)
        assert await self.upkeep.claim(Chore.ERASE, "a", LEASE, DAY) is not None
        assert await self.upkeep.done(who, "a", Chore.ERASE, DAY, {"erased": True})
        await self.let_pass(LONG)
        assert await self.upkeep.claim(Chore.ERASE, "a", LEASE, DAY) is None
        assert (await self.row(who)).erased_at is not None

    async def test_until_then_they_can_be_let_in_again(self) -> None:
        who = await self.resident()
        await self.delete(who)
        await self.directory.set_user_state(who, UserState.ACTIVE)
        assert (await self.row(who)).deleted_at is None
        await self.let_pass(LONG)
        assert await self.upkeep.claim(Chore.ERASE, "a", LEASE, DAY) is None
        await self.delete(who)
        assert await self.upkeep.claim(Chore.ERASE, "a", LEASE, DAY) is None, "the time runs anew"

    async def test_once_it_has_begun_there_is_no_way_back(self) -> None:
        who = await self.resident()
        await self.delete(who)
        assert await self.upkeep.claim(Chore.ERASE, "a", LEASE) is not None
        for state in (UserState.ACTIVE, UserState.BLOCKED):
            error = await self.raises(Erasing, self.directory.set_user_state(who, state))
            assert who in str(error)
        user = await self.directory.user(who)
        assert user is not None
        assert user.state is UserState.DELETED

    async def test_who_never_had_a_machine_is_erased_all_the_same(self) -> None:
        who = anybody()
        await self.directory.admit(who, "")
        await self.delete(who)
        assert await self.upkeep.claim(Chore.ERASE, "a", LEASE) is not None

    async def test_which_snapshot_is_wanted(self) -> None:
        who = await self.resident()
        await self.upkeep.want(who, "ab12")
        row = await self.row(who)
        assert row.wanted == "ab12"
        assert row.wanted_at is not None
        await self.upkeep.want(who, None)
        assert (await self.row(who)).wanted is None
