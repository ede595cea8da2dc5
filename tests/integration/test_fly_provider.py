"""The Fly provider against the emulator, over real HTTP, its machines real processes."""

from __future__ import annotations

from twisted.internet import reactor

from matrix.model import Machine
from matrix.testing.fly_machines import FlyMachinesCase
from matrix.testing.provider_suite import ProviderContract

TOKEN = {"MATRIX_MACHINE_TOKEN": "t" * 32}


class Case(FlyMachinesCase):
    reactor = reactor


class FlyContractTests(Case, ProviderContract):
    """Machines at Fly keep the contract."""

    environment = TOKEN

    async def kill(self, machine: Machine) -> None:
        await self.eventually(lambda: self.record(machine).state == "started")
        self.emulator.parts.lifecycle.kill(self.record(machine))

    async def a_while(self) -> None:
        await self.pause(0.01)
