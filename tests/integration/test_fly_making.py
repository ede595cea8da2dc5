"""Making machines at Fly when calls are lost, refused or broken off: each user has one, always."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from matrix.machines import ProviderError
from matrix.machines._fly_plans import machine_name, volume_name
from matrix.model import Machine, MachineState, user_id
from matrix.testing.fly_machines import FlyMachinesCase
from matrix.testing.provider_suite import Row, somebody

TOKEN = {"MATRIX_MACHINE_TOKEN": "t" * 32}

LOST = ({"kind": "lost"}, {"kind": "before"}, {"kind": "done-status", "status": 502},
        {"kind": "status", "status": 503}, {"kind": "row", "row": "rate"})  # fmt: skip
"""What can become of any call."""


class Killed(Exception):
    """The router was, here."""


class Case(FlyMachinesCase):
    reactor = reactor

    async def made(self, row: Row) -> str:
        """One more attempt."""
        return await self.provider.provision(row.machine, TOKEN, row.keep)

    async def insisted(self, row: Row, tries: int = 8) -> str:
        """As many attempts as it takes, each by another router."""
        for _ in range(tries - 1):
            try:
                return await self.made(row)
            except (ProviderError, Killed):
                self.provider = self.successor()
        return await self.made(row)

    def only_one(self, row: Row) -> None:
        """There is one machine and one volume, and the row knows both."""
        [machine], [volume] = self.machines(), self.volumes()
        self.assertEqual((machine.id, volume.id), (row.machine.machine_id, row.machine.volume_id))
        self.assertEqual(machine.volume, volume.id)
        self.assertEqual(row.machine.region, machine.region)
        self.assertEqual(row.machine.provision_step, "made")


class NameTests(Case):
    """Names are made of user ids."""

    def test_names_are_such_as_fly_takes(self) -> None:
        for _ in range(50):
            who = user_id(str(uuid4()))
            self.assertRegex(volume_name(who), r"\A[a-z0-9_]{28}\Z")
            self.assertRegex(machine_name(who), r"\A[a-z0-9-]{28}\Z")

    def test_names_differ(self) -> None:
        many = {volume_name(user_id(str(uuid4()))) for _ in range(500)}
        self.assertEqual(len(many), 500)


class StepsTests(Case):
    """What is written down, and when."""

    async def test_the_row_tells_of_each_thing_before_the_next_is_asked_for(self) -> None:
        row, asked = Row(somebody()), []
        keep = row.keep

        async def noted(**fields: object) -> Machine:
            steps = (row.machine.provision_step, str(fields["provision_step"]))
            asked.append((*(step and step.partition(" ")[0] for step in steps), self.calls()))
            return await keep(**fields)

        await self.provider.provision(row.machine, TOKEN, noted)
        volume = ["volumes.create", "apps.create", "volumes.create"]
        self.assertEqual(asked, [
            (None, "begun", []),
            ("begun", "begun", volume[:2]),
            ("begun", "volume", volume),
            ("volume", "made", [*volume, "machines.create"]),
        ])  # fmt: skip
        self.only_one(row)
        self.assertEqual(row.machine.image, "registry.example/daemon:1")

    async def test_two_calls_make_a_machine_in_an_app_that_is_there(self) -> None:
        await self.made(Row(somebody()))
        self.forget_calls()
        await self.made(Row(somebody()))
        self.assertEqual(self.calls(), ["volumes.create", "machines.create"])

    async def test_the_first_users_come_all_at_once(self) -> None:
        rows = [Row(somebody()) for _ in range(5)]
        await gatherResults([Deferred.fromCoroutine(self.made(row)) for row in rows])
        self.assertEqual((len(self.machines()), len(self.volumes())), (5, 5))

    async def test_what_is_made_is_found_by_one_call(self) -> None:
        row = Row(somebody())
        machine_id = await self.made(row)
        self.forget_calls()
        writes = len(row.writes)
        await self.pause(0.1)  # until it can be seen
        self.assertEqual(await self.made(row), machine_id)
        self.assertEqual((self.calls(), len(row.writes)), (["machines.get"], writes))


class BrokenOffTests(Case):
    """The router is killed at any line; another one goes on."""

    async def test_killed_before_and_after_each_write(self) -> None:
        for after in (False, True):
            for step in range(3):
                await self.killed_at(step, after)

    async def killed_at(self, step: int, after: bool) -> None:
        row = Row(somebody())
        keep, writes = row.keep, iter(range(100))

        async def cut(**fields: object) -> Machine:
            fatal = next(writes) == step
            if fatal and not after:
                raise Killed
            await keep(**fields)
            if fatal:
                raise Killed
            return row.machine

        with self.assertRaises(Killed):
            await self.provider.provision(row.machine, TOKEN, cut)
        self.provider = self.successor()
        await self.made(row)
        self.only_one(row)
        await self.provider.destroy(row.machine)

    async def test_killed_after_each_call(self) -> None:
        """After the first, after the second, until there is none to be killed after."""
        for fault in (None, {"action": "machines.create", "kind": "lost", "times": 1}):
            self.world.capacity["fra"] = 0  # so that there is more to be killed at
            number, finished = 1, False
            while not finished:
                row = Row(somebody())
                if fault is not None:
                    self.fault(**fault)
                finished = await self.killed_after(number, row)
                self.provider = self.successor()
                await self.insisted(row)
                self.only_one(row)
                await self.provider.destroy(row.machine)
                self.assertEqual((self.machines(), self.volumes()), ([], []))
                self.emulator.parts.api.faults.clear()
                number += 1
            self.assertGreater(number, 5)

    async def killed_after(self, number: int, row: Row) -> bool:
        """Whether all was done before as many calls were made."""
        client = self.client()
        tell, calls = client._http.tell, iter(range(1, 1000))

        async def fatal(*arguments: Any) -> object:
            answer = await tell(*arguments)
            if next(calls) == number:
                raise Killed
            return answer

        client._http.tell = fatal
        self.provider = self.successor(client=client)
        try:
            await self.made(row)
        except Killed:
            return False
        except ProviderError:
            pass
        return True

    async def test_every_call_lost_once(self) -> None:
        """However a call is lost, and whichever: the first, the second, and so on."""
        await self.made(warm := Row(somebody()))
        await self.provider.destroy(warm.machine)
        for fault in LOST:
            for action in ("volumes.create", "machines.create"):
                await self.lost(action, fault)

    async def lost(self, action: str, fault: dict[str, Any]) -> None:
        row = Row(somebody())
        self.fault(action=action, times=1, **fault)
        await self.insisted(row)
        self.only_one(row)
        await self.provider.destroy(row.machine)
        self.assertEqual((self.machines(), self.volumes()), ([], []))

    async def test_all_goes_wrong_again_and_again(self) -> None:
        for _ in range(5):
            row = Row(somebody())
            for fault in LOST:
                self.fault(action="*", rate=0.1, **fault)
            await self.insisted(row, tries=60)
            self.emulator.parts.api.faults.clear()
            self.only_one(row)
            await self.provider.destroy(row.machine)

    async def test_a_volume_that_comes_to_be_when_its_caller_is_gone(self) -> None:
        row = Row(somebody())
        self.fault(action="volumes.create", kind="slow", seconds=0.2, times=1)
        attempt = Deferred.fromCoroutine(self.made(row))
        await self.eventually(lambda: "volumes.create" in self.begun())
        attempt.cancel()
        await self.assertFailure(attempt, Exception)
        self.provider = self.successor()
        await self.made(row)
        await self.pause(0.3)
        self.only_one(row)

    def begun(self) -> dict[str, int]:
        return self.emulator.parts.api.calls.by_action

    async def test_a_machine_that_is_not_listed_yet(self) -> None:
        self.tuning.set("late_in_lists", "yes")
        self.tuning.set("unseen", "0.6")
        row = Row(somebody())
        self.fault(action="machines.create", kind="lost", times=1)
        await self.insisted(row)
        self.only_one(row)

    async def test_an_attempt_that_is_given_up(self) -> None:
        row = Row(somebody())
        self.fault(action="machines.create", kind="slow", seconds=0.2, times=1)
        attempt = Deferred.fromCoroutine(self.made(row))
        await self.eventually(lambda: row.machine.volume_id)
        await self.pause(0.05)
        attempt.cancel()
        await self.assertFailure(attempt, Exception)
        await self.insisted(row)
        await self.pause(0.3)
        self.only_one(row)


class RoomTests(Case):
    """Where there is no room, it is tried elsewhere."""

    def room(self, **regions: int) -> None:
        self.world.capacity.update(regions)

    async def test_the_next_region(self) -> None:
        row = Row(somebody())
        self.room(fra=0)
        await self.made(row)
        self.only_one(row)
        self.assertEqual(row.machine.region, "ams")
        started = await self.provider.start(row.machine, TOKEN)
        self.assertIs(started.was, MachineState.PROVISIONING)

    async def test_no_room_anywhere_is_said_and_leaves_nothing(self) -> None:
        row = Row(somebody())
        self.room(fra=0, ams=0)
        error = await self.assertFailure(Deferred.fromCoroutine(self.made(row)), ProviderError)
        self.assertIn("no room at Fly: fra: ", str(error))
        self.assertIn("; ams: ", str(error))
        self.assertEqual((self.machines(), self.volumes()), ([], []))
        self.room(fra=1)
        await self.made(row)
        self.only_one(row)

    async def test_no_room_for_the_volume(self) -> None:
        row = Row(somebody())
        self.fault(action="volumes.create", kind="row", row="no-room-for-volume", times=1)
        await self.made(row)
        self.only_one(row)
        self.assertEqual(row.machine.region, "ams")

    async def test_a_volume_with_data_is_never_thrown_away(self) -> None:
        row = Row(somebody())
        await self.made(row)
        volume = row.machine.volume_id
        await self.provider.start(row.machine, TOKEN)
        await self.eventually(lambda: self.record(row.machine).state == "started")
        lost = self.record(row.machine)
        self.emulator.parts.lifecycle.destroy(lost)
        await self.eventually(lambda: lost.state == "destroyed")
        await row.keep(machine_id=None)
        self.room(fra=0)
        error = await self.assertFailure(Deferred.fromCoroutine(self.made(row)), ProviderError)
        self.assertIn("no room", str(error))
        self.assertEqual([each.id for each in self.volumes()], [volume])
        self.room(fra=9)
        await self.made(row)
        self.only_one(row)
        self.assertEqual(row.machine.volume_id, volume)


class AdoptionTests(Case):
    """What is there already is taken."""

    async def test_a_machine_of_a_row_that_was_lost(self) -> None:
        row = Row(somebody())
        await self.made(row)
        again = Row(somebody(row.machine.user_id))
        await self.made(again)
        self.only_one(again)
        self.assertEqual(again.machine.machine_id, row.machine.machine_id)

    async def test_a_quota_is_told_as_it_is(self) -> None:
        row = Row(somebody())
        self.fault(action="machines.create", kind="row", row="quota")
        error = await self.assertFailure(Deferred.fromCoroutine(self.made(row)), ProviderError)
        self.assertIn("over the allowed quota", str(error))
        self.assertNotIn("fly-emulator", str(error))
