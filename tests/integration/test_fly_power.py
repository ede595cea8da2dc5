"""Starting and resting machines at Fly, in whatever state and with whatever goes wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from matrix.machines import MachineGone, ProviderError, Recall, Started
from matrix.model import Machine, MachineState
from matrix.testing.fly_machines import FlyMachinesCase
from matrix.testing.provider_suite import made, somebody

TOKEN = {"MATRIX_MACHINE_TOKEN": "t" * 32}

FOR_NOW = ("created", "replacing", "stopping", "still-active", "getting-replaced",
           "concurrent-update", "leased", "rate", "host-memory", "no-capacity")  # fmt: skip
"""Rows of the catalogue after which a start is tried again."""

UNCLEAR = ({"kind": "lost"}, {"kind": "before"}, {"kind": "done-status", "status": 502},
           {"kind": "status", "status": 503}, {"kind": "error-in-ok"},
           {"kind": "row", "row": "starting"}, {"kind": "row", "row": "already-started"},
           {"kind": "row", "row": "timeout"})  # fmt: skip
"""After which it has to be seen what came of it."""


class Case(FlyMachinesCase):
    reactor = reactor

    async def booted(self) -> tuple[Machine, Started]:
        machine = await made(self.provider, somebody(), TOKEN)
        started = await self.provider.start(machine, TOKEN)
        await self.until(machine, "started")
        return replace(machine, boot_id=started.boot_id), started

    async def asleep(self) -> tuple[Machine, Started]:
        """A machine whose row says, rightly, that it is suspended."""
        machine, started = await self.booted()
        await self.provider.suspend(machine)
        await self.until(machine, "suspended")
        self.forget_calls()
        return replace(machine, state=MachineState.SUSPENDED), started

    async def until(self, machine: Machine, state: str) -> None:
        await self.eventually(lambda: self.record(machine).state == state)

    async def wakes(self, machine: Machine, first: Started) -> None:
        """It resumes the boot that it was in."""
        started = await self.provider.start(machine, TOKEN)
        self.assertEqual((started.address, started.boot_id), (first.address, first.boot_id))
        await self.until(machine, "started")

    async def fails(self, work: Any, kind: type[Exception] = ProviderError) -> str:
        return str(await self.assertFailure(Deferred.fromCoroutine(work), kind))


class CallsTests(Case):
    """No more is asked of Fly than has to be."""

    async def test_a_wake_is_two_calls_and_a_sleep_two_more(self) -> None:
        machine, first = await self.asleep()
        await self.wakes(machine, first)
        self.assertEqual(self.calls(), ["machines.start", "machines.get"])
        self.forget_calls()
        await self.provider.suspend(machine)
        self.assertEqual(self.calls(), ["machines.suspend", "machines.wait"])

    async def test_what_runs_is_found_by_one_look(self) -> None:
        machine, first = await self.booted()
        self.forget_calls()
        found = await self.provider.start(replace(machine, state=MachineState.RUNNING), TOKEN)
        self.assertEqual(found, replace(first, was=MachineState.RUNNING))
        self.assertEqual(self.calls(), ["machines.get"])

    async def test_what_was_never_made_costs_nothing(self) -> None:
        machine = somebody()
        for rest in (self.provider.suspend, self.provider.stop, self.provider.destroy):
            await rest(machine)
        await self.fails(self.provider.start(machine, TOKEN), MachineGone)
        self.assertEqual(self.calls(), [])


class StartTests(Case):
    """A start ends with a machine that runs, or with a reason."""

    async def test_what_clears_up_by_itself(self) -> None:
        machine, first = await self.asleep()
        for row in FOR_NOW:
            self.fault(action="machines.start", kind="row", row=row, times=1)
            await self.wakes(machine, first)
            await self.provider.suspend(machine)

    async def test_what_is_unclear(self) -> None:
        machine, first = await self.asleep()
        for fault in UNCLEAR:
            for action in ("machines.start", "machines.get"):
                self.fault(action=action, times=1, **fault)
                await self.wakes(machine, first)
                self.emulator.parts.api.faults.clear()
                await self.provider.suspend(machine)

    async def test_no_room_is_waited_for_and_then_told(self) -> None:
        machine, _ = await self.asleep()
        self.provider = self.successor(patience=0.5)
        self.fault(action="machines.start", kind="row", row="host-memory")
        self.assertIn("insufficient memory", await self.fails(self.provider.start(machine, TOKEN)))
        self.assertLess(len(self.calls()), 10)

    async def test_what_is_for_good_is_told_at_once(self) -> None:
        machine, _ = await self.asleep()
        self.fault(action="machines.start", kind="row", row="quota")
        self.assertIn("allowed quota", await self.fails(self.provider.start(machine, TOKEN)))
        self.assertEqual(self.calls(), ["machines.start"])

    async def test_a_machine_that_somebody_destroyed(self) -> None:
        machine, _ = await self.asleep()
        self.emulator.parts.lifecycle.destroy(self.record(machine))
        await self.fails(self.provider.start(machine, TOKEN), MachineGone)
        await self.until(machine, "destroyed")
        await self.fails(self.provider.start(machine, TOKEN), MachineGone)
        self.assertIs((await self.provider.inspect(machine)).state, MachineState.LOST)

    async def test_a_host_that_cannot_be_reached(self) -> None:
        machine, _ = await self.asleep()
        self.record(machine).unreachable = True
        self.assertIn("cannot be reached", await self.fails(self.provider.start(machine, TOKEN)))
        self.assertIn("cannot be reached", await self.fails(self.provider.inspect(machine)))

    async def test_a_suspension_is_interrupted(self) -> None:
        machine, first = await self.booted()
        for switch in ("accepted", "refused"):
            self.tuning.set("start_while_suspending", switch)
            self.tuning.set("suspend", "0.3")
            await self.client().suspend("users", str(machine.machine_id))
            await self.wakes(replace(machine, state=MachineState.SUSPENDED), first)

    async def test_a_machine_that_is_being_stopped(self) -> None:
        machine, first = await self.booted()
        self.tuning.set("stop", "0.3")
        await self.client().stop("users", str(machine.machine_id))
        started = await self.provider.start(machine, TOKEN)
        self.assertIs(started.was, MachineState.STOPPED)
        self.assertNotEqual(started.boot_id, first.boot_id)

    async def test_what_is_in_a_starts_way_is_waited_for_by_one_call(self) -> None:
        machine, _ = await self.booted()
        address = self.record(machine).private_ip
        for name, seconds, begin in (
            ("stop", "0.6", self.client().stop),
            ("suspend", "0.6", self.client().suspend),
        ):
            self.tuning.set("start_while_suspending", "refused")
            self.tuning.set(name, seconds)
            await begin("users", str(machine.machine_id))
            self.forget_calls()
            started = await self.provider.start(
                replace(machine, state=MachineState.SUSPENDED), TOKEN
            )
            await self.until(machine, "started")
            self.assertEqual(
                (started.address.host, self.calls().count("machines.wait")), (address, 1)
            )
            self.assertLessEqual(
                self.calls().count("machines.start"), 20, "still active for a while"
            )

    async def test_a_machine_whose_config_is_being_replaced(self) -> None:
        machine, _ = await self.booted()
        await self.provider.stop(machine)
        self.tuning.set("replace", "0.5")
        client, found = self.client(), self.record(machine)
        shown = await client.machine("users", str(machine.machine_id))
        await client.update_machine("users", shown, found.config)
        self.forget_calls()
        await self.provider.start(replace(machine, state=MachineState.SUSPENDED), TOKEN)
        await self.until(machine, "started")
        self.assertEqual(self.calls().count("machines.wait"), 1)

    async def test_a_suspended_machine_that_has_lost_its_memory_boots(self) -> None:
        machine, first = await self.asleep()
        self.tuning.set("snapshot_loss", "1")
        started = await self.provider.start(machine, TOKEN)
        await self.until(machine, "started")
        self.assertEqual(started.address, first.address)
        self.assertIs(
            (await self.provider.follow(replace(machine, address=started.address), False)).state,
            MachineState.RUNNING,
        )

    async def test_a_boot_that_fails_is_told_at_once(self) -> None:
        machine = await made(self.provider, somebody(), TOKEN)
        self.tuning.set("failed_start", "1")
        started = await self.provider.start(machine, TOKEN)
        machine = replace(machine, address=started.address)
        self.forget_calls()
        seen = await self.provider.follow(machine, False)
        self.assertIs(seen.state, MachineState.STOPPED)
        self.assertEqual(self.calls(), ["machines.wait", "machines.get"])

    async def test_a_machine_that_was_moved_as_it_came_up_is_found_again(self) -> None:
        machine, first = await self.booted()
        machine = replace(machine, address=first.address)
        self.emulator.parts.operators.deeds()["migrate"](self.record(machine))
        seen = await self.provider.follow(machine, True)
        self.assertNotEqual(seen.address, first.address)
        self.assertEqual(str(seen.address.host), self.record(machine).private_ip)

    async def test_a_boot_that_failed(self) -> None:
        machine = await made(self.provider, somebody(), TOKEN)
        self.tuning.set("failed_start", "1")
        await self.provider.start(machine, TOKEN)
        await self.until(machine, "failed")
        self.assertIs((await self.provider.inspect(machine)).state, MachineState.STOPPED)
        self.tuning.set("failed_start", "0")
        await self.provider.start(machine, TOKEN)
        await self.until(machine, "started")

    async def test_another_host_is_another_address_and_another_volume(self) -> None:
        machine, first = await self.asleep()
        self.tuning.set("migration", "1")
        started = await self.provider.start(machine, TOKEN)
        self.assertNotEqual(started.address, first.address)
        self.assertEqual(started.address.host, self.record(machine).private_ip)
        self.assertNotEqual(started.volume_id, first.volume_id)
        self.assertEqual(started.volume_id, self.record(machine).volume)


class RestTests(Case):
    """A rest ends with a machine that rests, or with a reason."""

    async def test_what_goes_wrong_on_the_way(self) -> None:
        machine, first = await self.booted()
        rows = [{"kind": "row", "row": row} for row in ("leased", "rate", "concurrent-update")]
        for fault in (*rows, *UNCLEAR[:4]):
            for action in ("machines.suspend", "machines.wait"):
                self.fault(action=action, times=1, **fault)
                await self.provider.suspend(machine)
                self.assertEqual(self.record(machine).state, "suspended", (fault, action))
                self.emulator.parts.api.faults.clear()
                await self.wakes(replace(machine, state=MachineState.SUSPENDED), first)

    async def test_what_fly_will_not_suspend_is_stopped(self) -> None:
        machine, _ = await self.booted()
        self.fault(action="machines.suspend", kind="row", row="snapshot-scheduled")
        await self.provider.suspend(machine)
        self.assertEqual(self.record(machine).state, "stopped")

    async def test_a_router_that_does_not_know_the_version_asks_for_it(self) -> None:
        machine, _ = await self.booted()
        self.provider = self.successor()
        self.forget_calls()
        await self.provider.stop(machine)
        self.assertEqual(self.record(machine).state, "stopped")
        self.assertEqual(self.calls(), ["machines.stop", "machines.get", "machines.wait"])

    async def test_a_template_that_says_stop(self) -> None:
        self.change('auto_stop_machines = "suspend"', 'auto_stop_machines = "stop"')
        machine, _ = await self.booted()
        self.forget_calls()
        await self.provider.suspend(machine)
        self.assertEqual(Counter(self.calls())["machines.suspend"], 0)
        self.assertEqual(self.record(machine).state, "stopped")

    async def test_a_template_that_says_off(self) -> None:
        self.change('auto_stop_machines = "suspend"', 'auto_stop_machines = "off"')
        machine, _ = await self.booted()
        self.assertFalse(self.provider.sleeps)
        refusal = await self.fails(self.provider.suspend(machine))
        self.assertIn("auto_stop_machines is off", refusal)
        self.assertEqual(self.record(machine).state, "started")

    def change(self, old: str, new: str) -> None:
        """Another template, and a provider that has read it."""
        text = self.template.read_text("utf-8")
        self.assertIn(old, text)
        self.template.write_text(text.replace(old, new), "utf-8")
        self.provider = self.successor()


class ConfigTests(Case):
    """A changed image or template reaches machines when it costs no memory, or as they sleep."""

    def image(self, machine: Machine) -> str:
        return str(self.record(machine).config["image"])

    def renewed(self, image: str = "registry.example/daemon:2") -> None:
        """A router that has another image for machines."""
        self.provider = self.successor(image=image)
        self.forget_calls()

    async def test_a_machine_that_is_stopped_gets_it_before_it_starts(self) -> None:
        machine, first = await self.booted()
        await self.provider.stop(machine)
        self.renewed()
        started = await self.provider.start(machine, TOKEN)
        await self.until(machine, "started")
        self.assertEqual(self.image(machine), "registry.example/daemon:2")
        self.assertIs(started.was, MachineState.STOPPED)
        self.assertNotEqual(started.boot_id, first.boot_id)
        self.assertEqual(Counter(self.calls())["machines.update"], 1)

    async def test_a_machine_that_was_never_started(self) -> None:
        machine = await made(self.provider, somebody(), TOKEN)
        await self.pause(0.1)  # until it can be seen
        self.renewed()
        started = await self.provider.start(machine, TOKEN)
        self.assertEqual(self.image(machine), "registry.example/daemon:2")
        self.assertIs(started.was, MachineState.PROVISIONING)

    async def test_a_machine_that_is_suspended_keeps_its_memory_once_more(self) -> None:
        machine, first = await self.asleep()
        self.renewed()
        await self.wakes(machine, first)
        self.assertEqual(self.calls(), ["machines.start", "machines.get"])
        await self.provider.suspend(machine)
        self.assertEqual(self.image(machine), "registry.example/daemon:2")
        started = await self.provider.start(machine, TOKEN)
        self.assertIs(started.was, MachineState.STOPPED)
        await self.until(machine, "started")
        await self.provider.suspend(machine)
        self.assertEqual(self.record(machine).state, "suspended")

    async def test_nobody_else_is_to_start_it_before_it_has_its_config(self) -> None:
        machine, first = await self.asleep()
        self.renewed()
        await self.wakes(machine, first)
        images: list[str] = []
        recall = Recall(lambda: images.append(self.image(machine)))
        await self.provider.suspend(machine, recall)
        self.assertEqual(self.image(machine), "registry.example/daemon:2")
        self.assertEqual(images, [], "the update would end it if it ran")

    async def test_a_config_that_fly_refuses_keeps_nobody_out(self) -> None:
        machine, _ = await self.booted()
        await self.provider.stop(machine)
        self.renewed()
        self.fault(action="machines.update", kind="status", status=400)
        await self.provider.start(machine, TOKEN)
        await self.until(machine, "started")
        self.assertEqual(self.image(machine), "registry.example/daemon:1")

    async def test_nothing_is_changed_that_is_as_it_should_be(self) -> None:
        machine, _ = await self.booted()
        await self.provider.stop(machine)
        self.forget_calls()
        await self.provider.start(machine, TOKEN)
        self.assertEqual(Counter(self.calls())["machines.update"], 0)

    async def test_another_secret_is_another_config(self) -> None:
        machine, _ = await self.booted()
        await self.provider.stop(machine)
        await self.provider.start(machine, {"MATRIX_MACHINE_TOKEN": "u" * 32})
        self.assertEqual(self.record(machine).config["env"]["MATRIX_MACHINE_TOKEN"], "u" * 32)
