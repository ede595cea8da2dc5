"""Tests for the provider in memory: the contract, and what tests script with it."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from matrix.machines import MemoryFleet, MemoryProvider, ProviderError
from matrix.model import Address, Machine, MachineState, UserId
from matrix.testing.provider_suite import TellsDeaths, made, somebody


class MemoryContractTests(TellsDeaths, TestCase):
    """The in-memory twin keeps the contract."""

    def setUp(self) -> None:
        self.fleet = MemoryFleet()
        self.provider = self.successor()

    def successor(self) -> MemoryProvider:
        return MemoryProvider(reactor, fleet=self.fleet)  # type: ignore[arg-type]

    async def kill(self, machine: Machine) -> None:
        self.fleet.die(machine.user_id)

    async def until_told(self, told: list[UserId]) -> None:
        assert told


class ScriptingTests(SynchronousTestCase):
    """Delays, failures and the list of calls."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.provider = MemoryProvider(self.clock, address=lambda who: Address(host="h", port=1))
        self.machine = somebody()
        self.successResultOf(Deferred.fromCoroutine(made(self.provider, self.machine)))

    def start(self) -> Deferred:
        return Deferred.fromCoroutine(self.provider.start(self.machine, {"A": "b"}))

    def test_a_delay_passes_on_the_clock(self) -> None:
        self.provider.delays["start"] = 2.0
        started = self.start()
        self.clock.advance(1.9)
        self.assertNoResult(started)
        self.clock.advance(0.2)
        self.assertEqual(self.successResultOf(started).was, MachineState.PROVISIONING)

    def test_one_call_at_a_time_on_a_machine(self) -> None:
        self.provider.delays["start"] = 2.0
        first, second = self.start(), self.start()
        self.clock.advance(2.0)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.clock.advance(2.0)
        self.assertEqual(self.successResultOf(second).was, MachineState.RUNNING)

    def test_a_scripted_failure_comes_so_many_times(self) -> None:
        self.provider.fail("start", ProviderError("no room", retry_after=3.0), times=2)
        for _ in range(2):
            error = self.failureResultOf(self.start(), ProviderError).value
            self.assertEqual((str(error), error.retry_after), ("no room", 3.0))
        self.assertEqual(self.successResultOf(self.start()).was, MachineState.PROVISIONING)

    def test_a_cancelled_call_gives_its_turn_back(self) -> None:
        self.provider.delays["start"] = 2.0
        first = self.start()
        first.cancel()
        self.failureResultOf(first)
        second = self.start()
        self.clock.advance(2.0)
        self.successResultOf(second)

    def test_calls_environment_and_address_can_be_seen(self) -> None:
        started = self.successResultOf(self.start())
        self.assertEqual(started.address, Address(host="h", port=1))
        who = self.machine.user_id
        self.assertEqual(self.provider.calls, [("provision", who), ("start", who)])
        self.assertEqual(self.provider.fleet.machines[who].environment, {"A": "b"})

    def test_the_dead_do_not_die(self) -> None:
        told: list[UserId] = []
        self.provider.watch(told.append)
        self.provider.fleet.die(self.machine.user_id)
        self.assertEqual(told, [])
