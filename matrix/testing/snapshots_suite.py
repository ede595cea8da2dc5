"""The contract of L{ISnapshots} as tests, which every directory passes."""

from __future__ import annotations

from datetime import timedelta

from twisted.internet.defer import ensureDeferred as deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from matrix.directory import ISnapshots, UnknownUser
from matrix.model import Snapshot, SnapshotStatus, UserId
from matrix.testing.directory_suite import DirectoryCase, anybody

LEASE = 60.0
NEXT = 300.0


class SnapshotsContract(DirectoryCase):
    """Mix into a trial C{TestCase} that is a L{DirectoryCase}."""

    @property
    def snapshots(self) -> ISnapshots:
        return self.directory.snapshots

    async def let_pass(self, seconds: float) -> None:
        """Let time pass, as the directory tells it."""
        raise NotImplementedError

    async def user(self) -> UserId:
        """Somebody who was admitted."""
        return (await self.directory.admit(anybody(), "somebody@example.org")).id

    async def due(self) -> UserId:
        """Somebody whose next snapshot is due."""
        who = await self.user()
        await self.snapshots.enroll({who: -1.0})
        return who

    async def begun(self, owner: str = "a", who: UserId | None = None) -> Snapshot:
        """One that is being taken."""
        who = who or await self.user()
        snapshot = await self.snapshots.begin(who, "operator", owner, LEASE)
        assert snapshot is not None
        return snapshot

    async def done(self, who: UserId, restic_id: str, due_in: float | None = NEXT) -> Snapshot:
        """One that was taken."""
        assert await self.snapshots.finish(await self.begun(who=who), restic_id, 10, 100, due_in)
        newest = await self.snapshots.newest(who)
        assert newest is not None
        return newest

    async def claimed(self, *users: UserId, owner: str = "a", limit: int = 10) -> list[UserId]:
        """Whose are begun."""
        found = await self.snapshots.claim(users, "interval", owner, LEASE, limit)
        return [one.user_id for one in found]

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(ISnapshots, self.snapshots)

    # when they are due

    async def test_a_time_that_was_given_stays(self) -> None:
        who = await self.user()
        await self.snapshots.enroll({who: 60.0})
        await self.snapshots.enroll({who: 1000.0})
        assert await self.claimed(who) == []
        await self.let_pass(61.0)
        assert await self.claimed(who) == [who]

    async def test_strangers_are_passed_over(self) -> None:
        who = await self.user()
        await self.snapshots.enroll({anybody(): -1.0, who: -1.0})
        await self.snapshots.enroll({})
        assert await self.claimed(who) == [who]

    async def test_only_those_asked_for_are_claimed(self) -> None:
        who, other = await self.due(), await self.due()
        assert await self.claimed(who) == [who]
        assert await self.claimed() == []
        assert await self.claimed(other) == [other]

    async def test_the_longest_due_come_first_and_not_too_many(self) -> None:
        late, later, latest = await self.user(), await self.user(), await self.user()
        await self.snapshots.enroll({late: -1.0, later: -20.0, latest: -300.0})
        assert await self.claimed(late, later, latest, limit=0) == []
        assert set(await self.claimed(late, later, latest, limit=2)) == {latest, later}
        assert await self.claimed(late, later, latest) == [late]

    async def test_what_is_claimed_is_under_way_and_not_claimed_again(self) -> None:
        who = await self.due()
        [snapshot] = await self.snapshots.claim([who], "interval", "a", LEASE, 1)
        assert (snapshot.status, snapshot.cause) == (SnapshotStatus.STARTED, "interval")
        assert snapshot.lease_owner == "a"
        assert await self.snapshots.under_way(who) == snapshot
        assert await self.claimed(who, owner="b") == []
        assert await self.snapshots.begin(who, "operator", "b", LEASE) is None

    async def test_of_many_who_claim_at_once_one_gets_each(self) -> None:
        users = [await self.due() for _ in range(5)]
        claims = [deferred(self.claimed(*users, owner=str(n), limit=5)) for n in range(8)]
        claimed = await gatherResults(claims, consumeErrors=True)
        assert sorted(who for one in claimed for who in one) == sorted(users)

    # taking one

    async def test_of_a_stranger_none_is_begun(self) -> None:
        await self.raises(UnknownUser, self.snapshots.begin(anybody(), "operator", "a", LEASE))

    async def test_one_that_was_taken(self) -> None:
        begun = await self.begun()
        assert await self.snapshots.finish(begun, "f" * 64, 10, 100, NEXT, partial=True)
        newest = await self.snapshots.newest(begun.user_id)
        assert newest is not None
        assert newest.finished_at is not None
        assert newest.finished_at >= newest.started_at == begun.started_at
        assert (newest.id, newest.status) == (begun.id, SnapshotStatus.DONE)
        assert (newest.restic_id, newest.partial) == ("f" * 64, True)
        assert (newest.bytes_added, newest.bytes_total) == (10, 100)
        assert newest.lease_owner is None
        assert await self.snapshots.under_way(begun.user_id) is None

    async def test_the_next_is_due_when_it_was_said(self) -> None:
        who = await self.due()
        await self.done(who, "one")
        await self.let_pass(NEXT - 5)
        assert await self.claimed(who) == []
        await self.let_pass(10.0)
        assert await self.claimed(who) == [who]

    async def test_after_the_last_before_sleep_none_is_due_until_it_is_said(self) -> None:
        who = await self.due()
        await self.done(who, "one", due_in=None)
        await self.let_pass(100_000.0)
        assert await self.claimed(who) == []
        await self.snapshots.enroll({who: 60.0})
        await self.let_pass(61.0)
        assert await self.claimed(who) == [who]

    async def test_one_that_was_not_needed_leaves_no_trace(self) -> None:
        who = await self.due()
        taken = await self.done(who, "one")
        assert await self.snapshots.drop(await self.begun(who=who), NEXT)
        assert await self.snapshots.of_user(who) == [taken]
        assert await self.claimed(who) == []

    async def test_one_that_failed(self) -> None:
        who = await self.due()
        for seconds in (30.0, 60.0):
            assert await self.snapshots.fail(await self.begun(who=who), "disk on fire", seconds)
        [second, first] = await self.snapshots.of_user(who)
        assert (second.status, second.reason) == (SnapshotStatus.FAILED, "disk on fire")
        assert second.finished_at is not None
        assert first.id < second.id
        assert await self.snapshots.newest(who) is None
        assert await self.claimed(who) == []
        await self.let_pass(61.0)
        assert await self.claimed(who) == [who]

    async def test_failures_are_counted_until_one_is_good(self) -> None:
        who = await self.due()
        for _ in range(3):
            await self.snapshots.fail(await self.begun(who=who), "disk on fire", NEXT)
        assert await self.snapshots.failing() == 1
        [standing] = await self.snapshots.standings()
        assert (standing.user_id, standing.failures) == (who, 3)
        assert standing.email == "somebody@example.org"
        assert (standing.newest, standing.reason) == (None, "disk on fire")
        taken = await self.done(who, "one")
        assert await self.snapshots.failing() == 0
        [standing] = await self.snapshots.standings()
        assert (standing.failures, standing.newest, standing.reason) == (0, taken, None)
        assert standing.due_at is not None
        assert taken.finished_at is not None
        after = standing.due_at - taken.finished_at
        assert abs(after - timedelta(seconds=NEXT)) < timedelta(seconds=5)

    async def test_those_in_trouble_are_told_of_first(self) -> None:
        good, failing, new = await self.due(), await self.due(), await self.due()
        await self.done(good, "one")
        await self.done(failing, "two")
        await self.snapshots.fail(await self.begun(who=failing), "disk on fire", NEXT)
        await self.let_pass(60.0)
        better = await self.due()
        await self.done(better, "three")
        found = [one.user_id for one in await self.snapshots.standings()]
        assert found == [failing, new, good, better]
        assert [one.user_id for one in await self.snapshots.standings(1)] == [failing]

    # leases

    async def test_a_lease_that_is_prolonged_lasts(self) -> None:
        begun = await self.begun()
        await self.let_pass(LEASE - 5)
        assert await self.snapshots.prolong(begun, LEASE)
        await self.let_pass(LEASE - 5)
        assert await self.snapshots.take_over("b", LEASE, 10) == []

    async def test_one_that_was_abandoned_is_taken_over_once(self) -> None:
        begun = await self.begun()
        assert await self.snapshots.take_over("b", LEASE, 10) == []
        await self.let_pass(LEASE + 1)
        [taken] = await self.snapshots.take_over("b", LEASE, 10)
        assert (taken.id, taken.lease_owner) == (begun.id, "b")
        assert await self.snapshots.take_over("c", LEASE, 10) == []
        assert await self.snapshots.fail(taken, "its router ended", NEXT)

    async def test_who_lost_the_lease_changes_nothing(self) -> None:
        begun = await self.begun()
        await self.let_pass(LEASE + 1)
        [taken] = await self.snapshots.take_over("b", LEASE, 10)
        assert not await self.snapshots.prolong(begun, LEASE)
        assert not await self.snapshots.finish(begun, "one", 1, 1, NEXT)
        assert not await self.snapshots.fail(begun, "late", NEXT)
        assert not await self.snapshots.drop(begun, NEXT)
        assert await self.snapshots.under_way(begun.user_id) == taken

    async def test_what_has_ended_does_not_end_again(self) -> None:
        begun = await self.begun()
        assert await self.snapshots.finish(begun, "one", 1, 1, NEXT)
        assert not await self.snapshots.fail(begun, "late", NEXT)
        assert not await self.snapshots.drop(begun, NEXT)
        newest = await self.snapshots.newest(begun.user_id)
        assert newest is not None
        assert newest.restic_id == "one"

    # what there is

    async def test_the_newest_first(self) -> None:
        who, other = await self.user(), await self.user()
        taken = [await self.done(who, name) for name in ("one", "two", "three")]
        await self.done(other, "four")
        await self.snapshots.fail(await self.begun(who=who), "disk on fire", NEXT)
        found = await self.snapshots.of_user(who)
        assert list(found[1:]) == taken[::-1]
        assert found[0].status is SnapshotStatus.FAILED
        assert list(await self.snapshots.of_user(who, 2)) == list(found[:2])
        assert await self.snapshots.newest(who) == taken[-1]
        assert await self.snapshots.of_user(anybody()) == []

    # what becomes of them

    async def test_verified_ones(self) -> None:
        who, other = await self.user(), await self.user()
        for name in ("one", "two"):
            await self.done(who, name)
        await self.done(other, "one")
        await self.snapshots.verified(who, ["one", "of whom nobody knows"])
        await self.snapshots.verified(who, [])
        [two, one] = await self.snapshots.of_user(who)
        assert one.verified_at is not None
        assert two.verified_at is None
        [others] = await self.snapshots.of_user(other)
        assert others.verified_at is None

    async def test_what_the_repository_has_no_more_is_forgotten(self) -> None:
        who, other = await self.user(), await self.user()
        for name in ("one", "two"):
            await self.done(who, name)
        await self.done(other, "three")
        assert await self.snapshots.keep_only(who, ["two"]) == 0, "they are too young"
        await self.let_pass(3700.0)
        young = await self.done(who, "young")
        assert await self.snapshots.keep_only(who, ["two"]) == 1
        assert [one.restic_id for one in await self.snapshots.of_user(who)] == ["young", "two"]
        assert await self.snapshots.newest(who) == young
        assert len(await self.snapshots.of_user(other)) == 1

    async def test_old_failures_are_forgotten(self) -> None:
        who = await self.user()
        await self.snapshots.fail(await self.begun(who=who), "disk on fire", NEXT)
        await self.done(who, "one")
        assert await self.snapshots.purge(60.0) == 0
        await self.let_pass(61.0)
        assert await self.snapshots.purge(60.0) == 1
        assert [one.restic_id for one in await self.snapshots.of_user(who)] == ["one"]
