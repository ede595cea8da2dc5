"""A test with Fly's emulator on a port, and providers of its machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from matrix.machines import FlyProvider, _fly_patience, _fly_provider, _fly_volumes
from matrix.machines._fly import FlyClient
from matrix.machines._fly_http import FlyHttp
from matrix.machines._fly_plans import TEMPLATE, FlyPlace, FlyPlans
from matrix.machines._fly_rates import Priority, Rate, RateLimiter
from matrix.model import Machine
from matrix.testing.fly.addresses import Addresses
from matrix.testing.fly.emulator import ORGANIZATION, TOKEN, FlyEmulator
from matrix.testing.fly.tuning import Tuning
from matrix.testing.scratch import scratch

QUICK = {
    "unseen": "0.05", "pull": "0.05", "start": "0.02", "resume": "0.02", "suspend": "0.05",
    "stop": "0", "still_active": "0.05", "destroy": "0.05", "destroyed": "0.2",
    "replace": "0.05", "volume": "0.02", "rate_limits": "off",
}  # fmt: skip
"""Everything takes a while, but a short one."""

APP = "users"
LONG = 20.0
"""Seconds within which anything happens, on a host that does much else."""


class Unlimited(RateLimiter):
    """Lets every call through at once."""

    def turn(self, key: Hashable, rate: Rate, priority: Priority) -> Deferred[None]:
        return succeed(None)


class FlyMachinesCase(TestCase):
    """
    An emulator whose machines are real processes; no app is there before the first machine.

    @cvar reactor: the subclass's.
    """

    reactor: Any
    TUNING = QUICK

    def setUp(self) -> None:
        self.directory = scratch(self)
        # What the emulator is busy with takes it a fraction of what it takes Fly.
        self.patch(_fly_patience, "PAUSE", 0.03)  # type: ignore[no-untyped-call]
        self.patch(_fly_patience, "FULL_PAUSE", 0.1)  # type: ignore[no-untyped-call]
        self.patch(_fly_provider, "MOVED_AFTER", 0.1)  # type: ignore[no-untyped-call]
        self.patch(_fly_volumes, "IN_FLIGHT", 0.3)  # type: ignore[no-untyped-call]
        self.patch(_fly_volumes, "EXPORT_PAUSE", 0.03)  # type: ignore[no-untyped-call]
        self.tuning = Tuning()
        for name, value in self.TUNING.items():
            self.tuning.set(name, value)
        addresses = Addresses(str(self.directory))
        self.emulator = FlyEmulator(
            self.reactor, self.directory / "fly", tuning=self.tuning, addresses=addresses
        )
        self.emulator.listen()
        self.addCleanup(self._end)
        self.template = self.directory / "fly.toml.tmpl"
        self.template.write_text(TEMPLATE.read_text("utf-8"), "utf-8")
        self.pools: list[HTTPConnectionPool] = []
        self.provider = self.successor()

    async def _end(self) -> None:
        for pool in self.pools:
            await pool.closeCachedConnections()  # type: ignore[no-untyped-call]
        await self.emulator.close()

    @property
    def world(self) -> Any:
        """Everything that there is at the emulated Fly."""
        return self.emulator.parts.world

    def client(self, token: str = TOKEN) -> FlyClient:
        """One with its own connections, that keeps to no rates."""
        pool = HTTPConnectionPool(self.reactor)  # type: ignore[no-untyped-call]
        self.pools.append(pool)
        agent = Agent(self.reactor, pool=pool)  # type: ignore[no-untyped-call]
        return FlyClient(
            FlyHttp(agent, self.reactor, self.emulator.url, token, Unlimited(self.reactor))
        )

    def successor(self, **options: Any) -> FlyProvider:
        """A provider of the same machines, as of another router."""
        place = FlyPlace(ORGANIZATION, APP, ("fra", "ams"), "registry.example/daemon:1")
        place = FlyPlace(place.org, APP, options.pop("regions", place.regions),
                         options.pop("image", place.image), self.template,
                         options.pop("sizes", ()))  # fmt: skip
        client = options.pop("client", None) or self.client()
        return FlyProvider(client, FlyPlans(place), self.reactor, **options)

    # what was asked of Fly

    def calls(self) -> list[str]:
        """The actions asked for so far, in order."""
        return [made.action for made in self.emulator.parts.api.calls.latest]

    def forget_calls(self) -> None:
        """Count from here."""
        self.emulator.parts.api.calls.clear()

    def fault(self, **members: Any) -> None:
        """Let something go wrong; as the control API takes it."""
        from matrix.testing.fly.faults import Fault

        self.emulator.parts.api.faults.add(Fault.read(members))

    # what is at Fly

    def machines(self) -> list[Any]:
        """Those that are not destroyed."""
        return [each for each in self.world.machines.values() if each.state != "destroyed"]

    def volumes(self) -> list[Any]:
        """Those that were not deleted."""
        return [each for each in self.world.volumes.values() if not each.is_gone]

    def record(self, machine: Machine) -> Any:
        """A machine, as the emulator keeps it."""
        return self.world.machines[machine.machine_id]

    def data(self, machine: Machine) -> Path:
        """Where its files are."""
        return Path(self.world.store.volume(self.record(machine).volume))

    async def eventually(self, condition: Callable[[], object], seconds: float = LONG) -> None:
        """Return once C{condition()} is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come true"
            await self.pause(0.01)

    def pause(self, seconds: float) -> Deferred[None]:
        """Let time pass."""
        return deferLater(self.reactor, seconds)
