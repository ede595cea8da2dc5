"""Machines at Fly that cannot start where they are: made elsewhere, once, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from matrix.machines import ProviderError, Stranded, _fly_patience
from matrix.model import Machine, MachineState
from matrix.testing.fly_machines import FlyMachinesCase
from matrix.testing.provider_suite import Row, somebody

TOKEN = {"MATRIX_MACHINE_TOKEN": "t" * 32}
FULL = {"action": "machines.start", "kind": "row", "row": "host-memory"}
LOST = ({"kind": "lost"}, {"kind": "before"}, {"kind": "done-status", "status": 502},
        {"kind": "status", "status": 503}, {"kind": "row", "row": "rate"})  # fmt: skip
"""What can become of any call."""


class Killed(Exception):
    """The router was, here."""


class MovingCase(FlyMachinesCase):
    reactor = reactor

    def setUp(self) -> None:
        super().setUp()
        self.patch(_fly_patience, "FULL_PATIENCE", 0.3)  # type: ignore[no-untyped-call]
        self.tuning.set("hydrate", "0.05")

    async def asleep(self) -> Row:
        """The row of a machine that was used, and sleeps."""
        row = Row(somebody())
        await self.provider.provision(row.machine, TOKEN, row.keep)
        await self.provider.start(row.machine, TOKEN)
        await self.eventually(lambda: self.record(row.machine).state == "started")
        (self.data(row.machine) / "note.txt").write_text("remember me")
        await self.provider.suspend(row.machine)
        await row.keep(state=MachineState.SUSPENDED, boot_id="before")
        self.forget_calls()
        return row

    async def stranded(self, row: Row) -> Stranded:
        """How a start fails."""
        work = Deferred.fromCoroutine(self.provider.start(row.machine, TOKEN))
        error: Stranded = await self.assertFailure(work, Stranded)
        return error

    async def moved(self, row: Row, fresh: bool = False) -> str:
        """One attempt; or another, of one that was begun, as the router makes it."""
        if row.machine.on_trial and row.machine.machine_id is None:
            return await self.provider.provision(row.machine, TOKEN, row.keep)
        return await self.provider.relocate(row.machine, TOKEN, row.keep, fresh)

    async def answers(self, row: Row) -> None:
        """The machine is started, and seen to answer."""
        await self.pause(0.1)  # until it can be seen
        await self.provider.start(replace(row.machine, state=MachineState.PROVISIONING), TOKEN)
        await self.eventually(lambda: self.record(row.machine).state == "started")
        await row.keep(on_trial=False)

    async def settled(self, row: Row) -> None:
        """What was before is deleted."""
        while not await self.provider.confirm(row.machine, row.keep):
            await self.pause(0.05)

    def only_one(self, row: Row) -> None:
        """There is one machine and one volume, and the row knows both and no others."""
        [machine], [volume] = self.machines(), self.volumes()
        found = row.machine
        self.assertEqual((machine.id, volume.id), (found.machine_id, found.volume_id))
        self.assertEqual((machine.volume, machine.region), (volume.id, found.region))
        self.assertEqual((found.former_machine_id, found.former_volume_id), (None, None))
        self.assertFalse(found.on_trial)
        self.assertIn(found.provision_step, ("made", "anew"))


class FullHostTests(MovingCase):
    """The host has no room: a copy is made on another one."""

    async def test_it_is_waited_for_and_then_told(self) -> None:
        row = await self.asleep()
        self.fault(**FULL)
        error = await self.stranded(row)
        self.assertIn("insufficient memory", str(error))
        self.assertTrue(error.can_copy)
        self.assertGreater(self.calls().count("machines.start"), 1)

    async def test_room_that_comes_in_time_is_taken(self) -> None:
        row = await self.asleep()
        self.fault(**FULL, times=2)
        started = await self.provider.start(row.machine, TOKEN)
        self.assertIs(started.was, MachineState.SUSPENDED)

    async def test_the_data_are_copied_and_the_old_ones_kept_until_it_answers(self) -> None:
        row = await self.asleep()
        before = row.machine
        old_host = self.world.volumes[before.volume_id].host
        machine_id = await self.moved(row)
        after = row.machine
        self.assertEqual(after.machine_id, machine_id)
        self.assertEqual(after.former_machine_id, before.machine_id)
        self.assertEqual(after.former_volume_id, before.volume_id)
        self.assertTrue(after.on_trial)
        self.assertNotEqual(self.world.volumes[after.volume_id].host, old_host)
        self.assertEqual((self.data(after) / "note.txt").read_text(), "remember me")
        self.assertEqual((len(self.machines()), len(self.volumes())), (2, 2))
        await self.answers(row)
        self.assertEqual((len(self.machines()), len(self.volumes())), (2, 2))
        await self.settled(row)
        self.only_one(row)

    async def test_what_is_still_copied_from_is_kept(self) -> None:
        self.tuning.set("hydrate", "30")
        row = await self.asleep()
        await self.moved(row)
        await self.answers(row)
        self.assertFalse(await self.provider.confirm(row.machine, row.keep))
        self.assertEqual((len(self.machines()), len(self.volumes())), (2, 2))
        error = await self.assertFailure(Deferred.fromCoroutine(self.moved(row)), ProviderError)
        self.assertIn("still being copied", str(error))

    async def test_a_copy_finds_no_room_in_its_region(self) -> None:
        row = await self.asleep()
        self.world.capacity["fra"] = 1
        await self.moved(row)
        self.assertEqual(row.machine.region, "ams")
        self.assertEqual((self.data(row.machine) / "note.txt").read_text(), "remember me")
        await self.answers(row)
        await self.settled(row)
        self.only_one(row)

    async def test_nowhere_is_room_so_it_is_tried_again_where_it_was(self) -> None:
        row = await self.asleep()
        before = row.machine
        self.world.capacity.update(fra=1, ams=0)
        error = await self.assertFailure(Deferred.fromCoroutine(self.moved(row)), ProviderError)
        self.assertIn("no room at Fly: fra: ", str(error))
        self.assertEqual(replace(row.machine, provision_step=before.provision_step), before)
        self.only_one(row)
        await self.provider.start(row.machine, TOKEN)

    async def test_a_move_that_never_answered_is_given_up_for_another(self) -> None:
        row = await self.asleep()
        first = row.machine
        await self.moved(row)
        second = row.machine
        await self.provider.relocate(row.machine, TOKEN, row.keep, fresh=False)
        self.assertEqual(row.machine.former_machine_id, first.machine_id)
        self.assertNotIn(row.machine.machine_id, (first.machine_id, second.machine_id))
        await self.answers(row)
        await self.settled(row)
        self.only_one(row)
        self.assertEqual((self.data(row.machine) / "note.txt").read_text(), "remember me")

    async def test_it_can_be_moved_again_and_again(self) -> None:
        row = await self.asleep()
        for _ in range(3):
            await self.moved(row)
            await self.answers(row)
            await self.settled(row)
        self.only_one(row)
        self.assertEqual((self.data(row.machine) / "note.txt").read_text(), "remember me")

    async def test_a_user_who_is_deleted_in_the_middle_leaves_nothing(self) -> None:
        row = await self.asleep()
        await self.moved(row)
        await self.provider.destroy(row.machine)
        self.assertEqual((self.machines(), self.volumes()), ([], []))


class LostTests(MovingCase):
    """The machine is gone."""

    async def lose(self, row: Row, volume: bool = False) -> None:
        """As fleets' operators, and misfortune, do it; the router has noted it."""
        record = self.record(row.machine)
        self.emulator.parts.lifecycle.destroy(record)
        await self.eventually(lambda: record.state == "destroyed")
        if volume:
            await self.client().delete_volume("users", str(row.machine.volume_id))
        await row.keep(machine_id=None, state=MachineState.PROVISIONING)

    async def test_it_is_made_again_on_its_volume(self) -> None:
        row = await self.asleep()
        await self.lose(row)
        volume = row.machine.volume_id
        await self.provider.provision(row.machine, TOKEN, row.keep)
        self.assertEqual(row.machine.volume_id, volume)
        self.only_one(row)

    async def test_no_room_beside_its_volume(self) -> None:
        row = await self.asleep()
        await self.lose(row)
        self.world.capacity["fra"] = 0
        work = Deferred.fromCoroutine(self.provider.provision(row.machine, TOKEN, row.keep))
        error = await self.assertFailure(work, Stranded)
        self.assertTrue(error.can_copy)
        await self.moved(row)
        self.assertEqual(row.machine.region, "ams")
        self.assertEqual((self.data(row.machine) / "note.txt").read_text(), "remember me")
        await self.answers(row)
        await self.settled(row)
        self.only_one(row)

    async def test_its_volume_is_gone_as_well_and_so_is_its_region(self) -> None:
        row = await self.asleep()
        await self.lose(row, volume=True)
        self.world.capacity["fra"] = 0
        await self.provider.provision(row.machine, TOKEN, row.keep)
        self.only_one(row)
        self.assertEqual(row.machine.region, "ams")

    async def test_a_machine_that_was_moved_is_lost_before_it_answers(self) -> None:
        row = await self.asleep()
        await self.moved(row)
        await self.lose(row)
        await self.provider.provision(row.machine, TOKEN, row.keep)
        await self.answers(row)
        await self.settled(row)
        self.only_one(row)
        self.assertEqual((self.data(row.machine) / "note.txt").read_text(), "remember me")

    async def test_machine_and_copy_are_lost_before_it_answers(self) -> None:
        row = await self.asleep()
        await self.moved(row)
        await self.lose(row, volume=True)
        await self.provider.provision(row.machine, TOKEN, row.keep)
        self.assertEqual((self.data(row.machine) / "note.txt").read_text(), "remember me")
        await self.answers(row)
        await self.settled(row)
        self.only_one(row)


class HostDownTests(MovingCase):
    """The host does not answer: nothing can be copied."""

    async def down(self) -> Row:
        row = await self.asleep()
        record = self.record(row.machine)
        self.emulator.parts.operators.unreachable(record)
        return row

    async def test_it_is_told_and_nothing_is_done(self) -> None:
        row = await self.down()
        before = row.machine
        error = await self.stranded(row)
        self.assertFalse(error.can_copy)
        work = Deferred.fromCoroutine(self.moved(row))
        self.assertFalse((await self.assertFailure(work, Stranded)).can_copy)
        self.assertEqual(row.machine, before)
        self.assertEqual((len(self.machines()), len(self.volumes())), (1, 1))

    async def test_it_begins_anew_beside_what_there_was(self) -> None:
        row = await self.down()
        before = row.machine
        await self.moved(row, fresh=True)
        self.assertFalse((self.data(row.machine) / "note.txt").exists())
        self.assertEqual(row.machine.former_volume_id, before.volume_id)
        await self.answers(row)
        self.emulator.parts.operators.reachable(self.record(before))
        await self.settled(row)
        self.only_one(row)

    async def test_what_begins_anew_does_so_though_it_is_moved_once_more(self) -> None:
        """A snapshot may be put back onto it: what it had must not return by a copy."""
        row = await self.asleep()
        await self.moved(row, fresh=True)
        await self.provider.relocate(row.machine, TOKEN, row.keep, fresh=False)
        self.assertFalse((self.data(row.machine) / "note.txt").exists())
        await self.answers(row)
        await self.settled(row)
        self.only_one(row)
        await self.moved(row)  # it is copied as any other, once it has answered
        self.assertEqual(row.machine.provision_step, "made")


class BrokenOffTests(MovingCase):
    """The router is killed at any line of a move; another one goes on."""

    async def insisted(self, row: Row, fresh: bool, tries: int = 8) -> None:
        for _ in range(tries - 1):
            try:
                await self.moved_if_need_be(row, fresh)
            except (ProviderError, Killed):
                self.provider = self.successor()
            else:
                return
        await self.moved_if_need_be(row, fresh)

    async def moved_if_need_be(self, row: Row, fresh: bool) -> None:
        if not row.machine.on_trial or row.machine.machine_id is None:
            await self.moved(row, fresh)

    async def finished(self, row: Row, fresh: bool) -> None:
        await self.answers(row)
        for _ in range(20):
            try:
                await self.settled(row)
            except (ProviderError, Killed):
                self.provider = self.successor()
            else:
                break
        self.only_one(row)
        self.assertEqual((self.data(row.machine) / "note.txt").exists(), not fresh)
        await self.provider.destroy(row.machine)
        self.assertEqual((self.machines(), self.volumes()), ([], []))

    async def test_killed_after_each_call_of_a_move(self) -> None:
        for fresh in (False, True):
            number, was_killed = 1, True
            while was_killed:
                row = await self.asleep()
                self.provider = self.successor(client=self.fatal(number))
                was_killed = await self.broken_off(self.moved(row, fresh))
                self.provider = self.successor()
                await self.insisted(row, fresh)
                await self.finished(row, fresh)
                number += 1
            self.assertGreater(number, 3)

    async def test_killed_after_each_call_of_its_end(self) -> None:
        number, was_killed = 1, True
        while was_killed:
            row = await self.asleep()
            await self.moved(row)
            await self.answers(row)
            await self.eventually(lambda row=row: self.complete(row))
            self.provider = self.successor(client=self.fatal(number))
            was_killed = await self.broken_off(self.provider.confirm(row.machine, row.keep))
            self.provider = self.successor()
            await self.finished(row, False)
            number += 1
        self.assertGreater(number, 3)

    def complete(self, row: Row) -> bool:
        return bool(self.world.volumes[row.machine.volume_id].state == "created")

    async def test_killed_before_and_after_each_write(self) -> None:
        for after in (False, True):
            for step in range(3):
                row = await self.asleep()
                keep, writes = row.keep, iter(range(100))

                async def cut(
                    row: Row = row, keep: Any = keep, writes: Any = writes, step: int = step,
                    after: bool = after, **fields: object,
                ) -> Machine:  # fmt: skip
                    fatal = next(writes) == step
                    if fatal and not after:
                        raise Killed
                    await keep(**fields)
                    if fatal:
                        raise Killed
                    return row.machine

                work = self.provider.relocate(row.machine, TOKEN, cut, False)
                self.assertTrue(await self.broken_off(work))
                self.provider = self.successor()
                await self.insisted(row, False)
                await self.finished(row, False)

    async def test_all_goes_wrong_again_and_again(self) -> None:
        for _ in range(3):
            row = await self.asleep()
            for fault in LOST:
                self.fault(action="*", rate=0.08, **fault)
            await self.insisted(row, False, tries=60)
            self.emulator.parts.api.faults.clear()
            await self.finished(row, False)

    async def broken_off(self, work: Any) -> bool:
        """Whether the router was killed in it."""
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


class SizesTests(MovingCase):
    """Where there is no room for the usual size, others are tried before other regions."""

    def full(self, times: int) -> None:
        self.fault(action="machines.create", kind="row", row="volume-host-full", times=times)

    async def test_the_next_size_in_the_same_region(self) -> None:
        self.provider = self.successor(sizes=("shared-cpu-2x:1gb", "shared-cpu-1x:256mb"))
        row = Row(somebody())
        self.full(2)
        await self.provider.provision(row.machine, TOKEN, row.keep)
        self.only_one(row)
        self.assertEqual((row.machine.region, row.machine.size), ("fra", "shared-cpu-1x:256mb"))
        self.assertEqual(self.record(row.machine).config["guest"]["memory_mb"], 256)

    async def test_then_the_next_region_in_the_usual_size(self) -> None:
        self.provider = self.successor(sizes=("shared-cpu-2x:1gb",))
        row = Row(somebody())
        self.full(2)
        await self.provider.provision(row.machine, TOKEN, row.keep)
        self.only_one(row)
        self.assertEqual((row.machine.region, row.machine.size), ("ams", None))

    async def test_a_machine_keeps_its_size(self) -> None:
        self.provider = self.successor(sizes=("shared-cpu-2x:1gb",))
        row = Row(somebody())
        self.full(1)
        self.fault(action="machines.create", kind="lost", times=1)
        for _ in range(4):
            try:
                await self.provider.provision(row.machine, TOKEN, row.keep)
            except ProviderError:
                continue
            break
        self.assertEqual(row.machine.size, "shared-cpu-2x:1gb")
        self.provider = self.successor()  # from whose settings the size is gone
        await self.pause(0.1)  # until it can be seen
        self.forget_calls()
        await self.provider.start(row.machine, TOKEN)
        await self.eventually(lambda: self.record(row.machine).state == "started")
        await self.provider.stop(row.machine)
        await self.provider.start(replace(row.machine, state=MachineState.STOPPED), TOKEN)
        self.assertNotIn("machines.update", self.calls())
        self.assertEqual(self.record(row.machine).config["guest"]["memory_mb"], 1024)
