"""Machines in stock at Fly: made once, given to one user each, and never leaked."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from matrix.auth import MachineSecrets
from matrix.directory import IDirectory, open_directory
from matrix.machines import ProviderError
from matrix.model import Machine, MachineState, UserId, user_id
from matrix.router import placing
from matrix.router.fleet import Fleet, Row
from matrix.router.stocking import Stocking
from matrix.testing import postgres
from matrix.testing.fly_machines import QUICK, FlyMachinesCase


class Killed(Exception):
    """The router was, here."""


class StockCase(FlyMachinesCase):
    """With a directory in PostgreSQL, and routers that share it."""

    reactor = reactor
    SIZE = 2

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.dsn = postgres.fresh_database()
        self.addCleanup(postgres.drop_database, self.dsn)
        self.directory_: IDirectory = await open_directory(reactor, self.dsn)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.directory_.close()))
        self.fleet, self.stocking = self.router()

    def router(self, provider: Any = None, size: int | None = None) -> tuple[Fleet, Stocking]:
        """One more, of which nobody else is known to have ended."""
        provider = provider or self.successor()
        fleet = Fleet(
            reactor, self.directory_, provider, MachineSecrets("m" * 32), self.no_backend,
            f"router-{uuid4()}", has_ended=lambda name: True,
        )  # fmt: skip
        stocking = Stocking(fleet, provider, self.SIZE if size is None else size)
        fleet.stock = stocking
        return fleet, stocking

    def no_backend(self, address: object) -> Any:
        raise AssertionError("nothing is asked of machines here")

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        return postgres.execute(statement, self.dsn)

    def leases_expire(self) -> None:
        """As if much time had passed."""
        self.sql("UPDATE stock SET lease_expires_at = now() WHERE lease_owner IS NOT NULL")

    async def newcomer(self, fleet: Fleet) -> Row:
        """The row of a user who comes for the first time."""
        who: UserId = user_id(str(uuid4()))
        await self.directory_.admit(who, "")
        return fleet.row(await self.directory_.create_machine(who, "fly"))

    async def present(self, row: Row) -> Machine:
        found = await self.directory_.machine(row.machine.user_id)
        assert found is not None
        return found

    async def comes(self, fleet: Fleet) -> Row:
        """The row of a user who has come, and got a machine."""
        row = await self.newcomer(fleet)
        await placing.made(fleet, row)
        return row

    def is_theirs(self, machine: Machine) -> None:
        """The machine at Fly says so, and it is the only one."""
        record = self.record(machine)
        self.assertEqual(record.config["metadata"]["matrix_user"], machine.user_id)
        self.assertNotIn("matrix_stock", record.config["metadata"])
        self.assertEqual(record.config["env"]["MATRIX_USER"], machine.user_id)
        self.assertEqual(record.volume, machine.volume_id)
        self.assertEqual(machine.provision_step, "made")

    async def all_accounted_for(self) -> None:
        """All that there is at Fly is a user's or in stock."""
        known = [*await self.directory_.machines(), *await self.directory_.stock.places("fly")]
        for what, there in (("machine_id", self.machines()), ("volume_id", self.volumes())):
            ids = sorted(str(getattr(row, what)) for row in known if getattr(row, what))
            self.assertEqual(ids, sorted(each.id for each in there))


class StockTests(StockCase):
    """Filling the stock, and giving from it."""

    async def test_it_is_filled_and_no_more_than_that(self) -> None:
        for _ in range(2):
            await self.stocking.fill()
            self.assertEqual((len(self.machines()), len(self.volumes())), (2, 2))
        self.assertEqual(self.stocking.ready, 2)
        await self.all_accounted_for()
        for machine in self.machines():
            self.assertEqual(machine.state, "created")
            self.assertIn("matrix_stock", machine.config["metadata"])
            self.assertEqual(machine.config["env"]["MATRIX_MACHINE_TOKEN"], "redacted")

    async def test_who_comes_gets_one_and_it_is_theirs(self) -> None:
        await self.stocking.fill()
        await self.pause(0.1)  # until Fly shows what was made
        self.forget_calls()
        row = await self.comes(self.fleet)
        self.assertNotIn("machines.create", self.calls())
        self.is_theirs(row.machine)
        self.assertEqual(await self.present(row), row.machine)
        await self.pause(0.1)
        started = await self.fleet.provider.start(row.machine, self.fleet.environment(row.machine))
        self.assertIs(started.was, MachineState.PROVISIONING)
        self.assertEqual(self.stocking.given, 1)
        await self.stocking.fill()
        self.assertEqual(len(self.machines()), 3)
        await self.all_accounted_for()

    async def test_one_that_fly_does_not_show_yet_is_waited_for(self) -> None:
        self.tuning.set("unseen", "0.5")
        await self.stocking.fill()
        self.forget_calls()
        row = await self.comes(self.fleet)
        self.assertNotIn("machines.create", self.calls())
        self.is_theirs(row.machine)
        await self.all_accounted_for()

    async def test_who_comes_when_there_is_none_gets_a_new_one(self) -> None:
        row = await self.comes(self.fleet)
        self.is_theirs(row.machine)
        self.assertEqual(self.stocking.given, 0)

    async def test_many_come_to_two_routers_at_once(self) -> None:
        others = [self.router() for _ in range(2)]
        await gatherResults([Deferred.fromCoroutine(each.fill()) for _, each in others])
        await self.stocking.fill()
        fleets = [self.fleet, *(fleet for fleet, _ in others)] * 2
        rows = await gatherResults([Deferred.fromCoroutine(self.comes(one)) for one in fleets])
        self.assertEqual(len({row.machine.machine_id for row in rows}), 6)
        for row in rows:
            self.is_theirs(row.machine)
        await self.all_accounted_for()

    async def test_what_is_too_much_goes(self) -> None:
        await self.stocking.fill()
        _, smaller = self.router(size=1)
        await smaller.fill()
        self.assertEqual((len(self.machines()), len(self.volumes())), (1, 1))
        _, none = self.router(size=0)
        await none.fill()
        self.assertEqual((self.machines(), self.volumes()), ([], []))

    async def test_what_was_made_of_another_image_goes_after_a_while(self) -> None:
        await self.stocking.fill()
        newer = self.successor(image="registry.example/daemon:2")
        fleet, stocking = self.router(newer)
        await stocking.fill()
        self.assertEqual((len(self.machines()), stocking.ready), (2, 0))
        self.is_theirs((await self.comes(fleet)).machine)
        self.assertEqual(stocking.given, 0)
        self.sql("UPDATE stock SET made_at = now() - interval '1 hour'")
        await stocking.fill()
        self.assertEqual(stocking.ready, 2)
        images = {each.config["image"] for each in self.machines()}
        self.assertEqual(images, {"registry.example/daemon:2"})
        await self.all_accounted_for()

    async def test_no_room_is_no_reason_to_ask_again_and_again(self) -> None:
        self.world.capacity.update(fra=0, ams=0)
        await self.stocking.fill()
        self.forget_calls()
        await self.stocking.fill()
        self.assertEqual(self.calls(), [])
        self.assertEqual((self.machines(), self.volumes()), ([], []))


class FasterTests(StockCase):
    """What it is for."""

    TUNING = QUICK | {"pull": "2", "replace": "0.3"}
    SIZE = 1

    async def test_claiming_is_faster_than_making(self) -> None:
        await self.stocking.fill()
        await self.pause(2.1)  # until its image is there
        claimed, made = await self.seconds(), await self.seconds()
        self.assertLess(claimed, made - 1.0)

    async def seconds(self) -> float:
        """Until one more user's machine runs."""
        began = time.monotonic()
        row = await self.comes(self.fleet)
        environment = self.fleet.environment(row.machine)
        await self.fleet.provider.start(row.machine, environment)
        await self.eventually(lambda: self.record(row.machine).state == "started")
        return time.monotonic() - began


class BrokenOffTests(StockCase):
    """A router is killed at any line; others go on."""

    SIZE = 1

    async def test_killed_after_each_call_of_filling(self) -> None:
        number, was_killed = 1, True
        while was_killed:
            _, cut = self.router(self.successor(client=self.fatal(number)))
            was_killed = await self.broken_off(cut.fill())
            self.leases_expire()
            _, other = self.router()
            await other.fill()
            self.assertEqual(other.ready, 1)
            await self.all_accounted_for()
            self.assertEqual((len(self.machines()), len(self.volumes())), (1, 1))
            _, none = self.router(size=0)
            await none.fill()
            self.assertEqual((self.machines(), self.volumes()), ([], []))
            number += 1
        self.assertGreater(number, 2)

    async def test_killed_after_each_call_of_giving(self) -> None:
        number, was_killed = 1, True
        while was_killed:
            await self.stocking.fill()
            fleet, _ = self.router(self.successor(client=self.fatal(number)))
            row = await self.newcomer(fleet)
            was_killed = await self.broken_off(placing.made(fleet, row))
            other, _ = self.router()
            again = other.row(await self.present(row))
            await self.pause(0.1)  # until it can be seen
            await placing.made(other, again)
            self.is_theirs(again.machine)
            await self.all_accounted_for()
            await other.provider.destroy(again.machine)
            self.sql(f"DELETE FROM machines WHERE user_id = '{again.machine.user_id}'")
            await self.all_accounted_for()
            number += 1
        self.assertGreater(number, 2)

    async def test_a_machine_that_was_given_is_lost_before_it_is_theirs(self) -> None:
        await self.stocking.fill()
        row = await self.newcomer(self.fleet)
        await self.stocking(row)
        self.assertEqual(row.machine.provision_step, "claimed")
        record = self.record(row.machine)
        self.emulator.parts.lifecycle.destroy(record)
        await self.eventually(lambda: record.state == "destroyed")
        await placing.made(self.fleet, row)
        self.is_theirs(row.machine)
        await self.all_accounted_for()

    async def broken_off(self, work: Any) -> bool:
        try:
            await work
        except Killed:
            return True
        except ProviderError:
            pass
        return False

    def fatal(self, number: int) -> Any:
        """A client whose router is killed after so many calls."""
        client = self.client()
        tell, calls = client._http.tell, iter(range(1, 1000))

        async def cut(*arguments: Any) -> object:
            answer = await tell(*arguments)
            if next(calls) == number:
                raise Killed
            return answer

        client._http.tell = cut  # type: ignore[method-assign]
        return client
