"""A machine at Fly that is wanted while it is put to sleep: nobody waits for the sleep's end."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from matrix.machines import ProviderError, Recall, Recalled, Started
from matrix.model import Machine, MachineState
from matrix.testing.fly_machines import FlyMachinesCase
from matrix.testing.provider_suite import made, somebody

TOKEN = {"MATRIX_MACHINE_TOKEN": "t" * 32}

LONG_SUSPEND = "60"
"""Seconds: no test waits for so long."""


class RecallTests(FlyMachinesCase):
    reactor = reactor

    async def booted(self) -> tuple[Machine, Started]:
        machine = await made(self.provider, somebody(), TOKEN)
        started = await self.provider.start(machine, TOKEN)
        await self.eventually(lambda: self.record(machine).state == "started")
        self.forget_calls()
        return replace(machine, boot_id=started.boot_id), started

    def suspending(self, machine: Machine, recall: Recall) -> Deferred[None]:
        return Deferred.fromCoroutine(self.provider.suspend(machine, recall))

    async def test_a_start_interrupts_it(self) -> None:
        self.tuning.set("suspend", LONG_SUSPEND)
        machine, first = await self.booted()
        recall = Recall()
        suspending = self.suspending(machine, recall)
        await self.eventually(lambda: recall.begun)
        self.assertEqual(self.record(machine).state, "suspending")
        recall.ask()
        await suspending
        again = await self.provider.start(replace(machine, state=MachineState.SUSPENDING), TOKEN)
        self.assertEqual((again.address, again.boot_id), (first.address, first.boot_id))
        self.assertIs(again.was, MachineState.SUSPENDED)
        await self.eventually(lambda: self.record(machine).state == "started")
        asked = Counter(self.calls())
        self.assertEqual((asked["machines.suspend"], asked["machines.start"]), (1, 1))

    async def test_a_start_by_another_router_interrupts_it(self) -> None:
        self.tuning.set("suspend", LONG_SUSPEND)
        machine, first = await self.booted()
        self.provider, other = self.successor(patience=1.5), self.provider
        recall = Recall()
        suspending = self.suspending(machine, recall)
        await self.eventually(lambda: recall.begun)
        again = await other.start(replace(machine, state=MachineState.SUSPENDING), TOKEN)
        self.assertEqual(again.boot_id, first.boot_id)
        error = await self.assertFailure(suspending, ProviderError)
        self.assertIn("runs on", str(error))
        self.assertEqual(self.record(machine).state, "started")
        self.assertEqual(Counter(self.calls())["machines.suspend"], 1)

    async def test_where_fly_lets_nothing_interrupt_it(self) -> None:
        """As it once was: the start waits until it may."""
        self.tuning.set("suspend", "0.3")
        self.tuning.set("start_while_suspending", "refused")
        machine, first = await self.booted()
        recall = Recall(lambda: recall.ask())
        await self.suspending(machine, recall)
        self.assertEqual(self.record(machine).state, "suspending")
        again = await self.provider.start(replace(machine, state=MachineState.SUSPENDING), TOKEN)
        self.assertEqual((again.address, again.boot_id), (first.address, first.boot_id))
        await self.eventually(lambda: self.record(machine).state == "started")

    async def test_one_that_is_to_be_stopped(self) -> None:
        text = self.template.read_text("utf-8")
        text = text.replace('auto_stop_machines = "suspend"', 'auto_stop_machines = "stop"')
        self.template.write_text(text, "utf-8")
        self.provider = self.successor()
        self.tuning.set("stop", "0.2")
        machine, first = await self.booted()
        recall = Recall(lambda: recall.ask())
        await self.suspending(machine, recall)
        self.assertEqual(self.record(machine).state, "stopping")
        again = await self.provider.start(replace(machine, state=MachineState.SUSPENDING), TOKEN)
        self.assertNotEqual(again.boot_id, first.boot_id)
        await self.eventually(lambda: self.record(machine).state == "started")

    async def test_while_fly_does_not_agree_it_is_called_off(self) -> None:
        machine, _ = await self.booted()
        self.fault(action="machines.suspend", kind="row", row="leased")
        recall = Recall()
        suspending = self.suspending(machine, recall)
        await self.eventually(lambda: len(self.calls()) > 2)
        recall.ask()
        await self.assertFailure(suspending, Recalled)
        self.assertFalse(recall.begun)
        asked = Counter(self.calls())
        self.emulator.parts.api.faults.clear()
        await self.pause(0.2)
        self.assertEqual(Counter(self.calls()), asked)
        self.assertEqual(self.record(machine).state, "started")

    async def test_an_answer_that_is_lost_is_waited_for(self) -> None:
        """What Fly may have heard cannot be called off any more."""
        machine, first = await self.booted()
        self.fault(action="machines.suspend", kind="lost", times=1)
        recall = Recall()
        suspending: Deferred[Any] = self.suspending(machine, recall)
        await self.eventually(lambda: "machines.suspend" in self.calls())
        recall.ask()
        await suspending
        self.assertTrue(recall.begun)
        again = await self.provider.start(replace(machine, state=MachineState.SUSPENDING), TOKEN)
        self.assertEqual(again.boot_id, first.boot_id)
