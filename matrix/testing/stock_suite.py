"""The contract of L{IStock} as tests: every directory passes them."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred as deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from matrix.directory import IStock, StaleRow
from matrix.model import Machine
from matrix.testing.directory_suite import DirectoryCase, anybody

ANYTHING = "a digest"
"""What machines are made of."""


class StockContract(DirectoryCase):
    """Mix into a trial C{TestCase} that is a L{DirectoryCase}."""

    @property
    def stock(self) -> IStock:
        return self.directory.stock

    async def let_pass(self, seconds: float) -> None:
        """Let time pass, as the directory tells it."""
        raise NotImplementedError

    async def begun(self, size: int = 1, made_of: str = ANYTHING) -> Machine:
        """A place that we fill."""
        place: Machine | None = await self.stock.begin("fly", size, made_of, "router")
        assert place is not None
        return place

    async def filled(self, size: int = 1, made_of: str = ANYTHING) -> Machine:
        """The machine in a place that is ready."""
        place = await self.begun(size, made_of)
        place = await self.stock.change(
            place, app="users", machine_id=f"m-{place.user_id}", volume_id=f"v-{place.user_id}",
            region="fra", image="daemon:1", size=None, provision_step="made",
        )  # fmt: skip
        await self.stock.ready(place)
        return place

    async def newcomer(self) -> Machine:
        """The row of a user who has no machine yet."""
        who = anybody()
        await self.directory.admit(who, "")
        row: Machine = await self.directory.create_machine(who, "fly")
        return row

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(IStock, self.stock)

    async def test_there_are_never_more_places_than_are_wanted(self) -> None:
        calls = [deferred(self.stock.begin("fly", 3, ANYTHING, f"r{n}")) for n in range(12)]
        found = [place for place in await gatherResults(calls) if place is not None]
        while (place := await self.stock.begin("fly", 3, ANYTHING, "last")) is not None:
            found.append(place)  # of those who wanted the same number at once, some got none
        assert len({place.user_id for place in found}) == len(found) == 3
        assert len(await self.stock.places("fly")) == 3

    async def test_a_provider_has_its_own(self) -> None:
        await self.filled()
        assert await self.stock.begin("elsewhere", 1, ANYTHING, "router") is not None
        assert await self.stock.count("fly", ANYTHING) == 1
        assert await self.stock.count("elsewhere", ANYTHING) == 0

    async def test_a_place_that_was_left_is_taken_up_with_what_is_known_of_it(self) -> None:
        place = await self.stock.change(await self.begun(), volume_id="v1")
        assert await self.stock.begin("fly", 1, ANYTHING, "other") is None
        await self.let_pass(200.0)
        again = await self.stock.begin("fly", 1, ANYTHING, "other")
        assert again is not None
        assert (again.user_id, again.volume_id) == (place.user_id, "v1")
        await self.raises(StaleRow, self.stock.change(place, machine_id="m1"))
        await self.raises(StaleRow, self.stock.ready(place))
        await self.raises(StaleRow, self.stock.drop(place))

    async def test_only_what_is_known_of_a_machine_without_a_user_can_be_written(self) -> None:
        place = await self.begun()
        await self.raises(TypeError, self.stock.change(place, boot_id="b"))
        await self.raises(TypeError, self.stock.change(place, machine_id=7))

    async def test_a_user_gets_what_is_ready_and_nobody_else_does(self) -> None:
        place, row = await self.filled(), await self.newcomer()
        assert await self.stock.count("fly", ANYTHING) == 1
        claimed = await self.stock.claim(row, ANYTHING, "claimed")
        assert claimed is not None
        assert (claimed.user_id, claimed.generation) == (row.user_id, row.generation + 1)
        assert (claimed.machine_id, claimed.volume_id) == (place.machine_id, place.volume_id)
        assert (claimed.app, claimed.region, claimed.image) == ("users", "fra", "daemon:1")
        assert claimed.provision_step == "claimed"
        assert await self.directory.machine(row.user_id) == claimed
        assert await self.stock.claim(await self.newcomer(), ANYTHING, "claimed") is None
        assert await self.stock.places("fly") == []

    async def test_many_who_come_at_once_get_one_each(self) -> None:
        for _ in range(3):
            await self.filled(3)
        rows = [await self.newcomer() for _ in range(8)]
        calls = [deferred(self.stock.claim(row, ANYTHING, "claimed")) for row in rows]
        found = [one for one in await gatherResults(calls) if one is not None]
        assert len({one.machine_id for one in found}) == len(found) == 3

    async def test_what_is_not_ready_or_made_of_something_else_is_given_to_nobody(self) -> None:
        row = await self.newcomer()
        await self.filled(1, "something else")
        await self.begun(2)
        assert await self.stock.claim(row, ANYTHING, "claimed") is None
        assert await self.directory.machine(row.user_id) == row

    async def test_nothing_is_taken_for_a_row_that_changed_meanwhile(self) -> None:
        await self.filled()
        row = await self.newcomer()
        await self.directory.change(row, state_reason="another router was faster")
        await self.raises(StaleRow, self.stock.claim(row, ANYTHING, "claimed"))
        assert await self.stock.count("fly", ANYTHING) == 1
        await self.raises(StaleRow, self.stock.claim(row, "nothing", "claimed"))

    async def test_one_too_many_is_taken_away(self) -> None:
        await self.filled(2)
        last = await self.filled(2)
        assert await self.stock.surplus("fly", 2, ANYTHING, "router") is None
        place = await self.stock.surplus("fly", 1, ANYTHING, "router")
        assert place is not None
        assert (place.user_id, place.machine_id) == (last.user_id, last.machine_id)
        assert await self.stock.count("fly", ANYTHING) == 1
        assert await self.stock.surplus("fly", 1, ANYTHING, "other") is None
        await self.stock.drop(place)
        assert len(await self.stock.places("fly")) == 1

    async def test_what_is_made_of_something_else_is_taken_away_after_a_while(self) -> None:
        await self.filled(1, "something else")
        assert await self.stock.surplus("fly", 1, ANYTHING, "router") is None
        await self.let_pass(601.0)
        assert await self.stock.surplus("fly", 1, ANYTHING, "router") is not None
