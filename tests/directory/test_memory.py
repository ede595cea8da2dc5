"""The in-memory twin passes the directory's contract, and has its outages on demand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from matrix.directory import DirectoryUnavailable, MemoryDirectory
from matrix.model import User, UserId
from matrix.testing import directory_suite


class MemoryContractTests(directory_suite.DirectoryContract, TestCase):
    """Every test of the contract, without a reactor's turn."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.directory = self.memory = MemoryDirectory(self.clock)

    async def put_user(self, user: User) -> None:
        self.memory.put_user(user)

    async def drop_machine(self, user_id: UserId) -> None:
        self.memory.drop_machine(user_id)

    async def eventually(self, condition: Callable[[], bool]) -> None:
        self.assertTrue(condition())

    async def test_events_carry_the_clock(self) -> None:
        machine = await self.resident()
        self.clock.advance(1_000)
        await self.memory.record(machine.user_id, "wake", "request")
        [event] = await self.memory.events(machine.user_id)
        self.assertEqual(event.at, datetime.fromtimestamp(1_000, UTC))

    async def test_details_must_be_json(self) -> None:
        machine = await self.resident()
        await self.raises(
            TypeError, self.memory.record(machine.user_id, "wake", "request", {"at": object()})
        )

    async def test_an_outage(self) -> None:
        heard: list[UserId | None] = []
        machine = await self.resident()
        self.memory.watch(heard.append)
        self.clock.advance(5)
        self.memory.lose()
        for call in (
            self.memory.user(machine.user_id),
            self.memory.admit(machine.user_id, ""),
            self.memory.find_user("x"),
            self.memory.machine(machine.user_id),
            self.memory.machines(),
            self.memory.create_machine(machine.user_id, "local"),
            self.memory.change(machine),
            self.memory.touch({machine.user_id: 9.0}),
            self.memory.record(machine.user_id, "wake", "request"),
            self.memory.events(machine.user_id),
        ):
            await self.raises(DirectoryUnavailable, call)
        self.assertEqual(self.memory.stale_since(), 5)
        self.assertEqual(heard, [])
        self.memory.recover()
        self.assertEqual(heard, [None])
        self.assertIsNone(self.memory.stale_since())
        self.assertEqual(await self.memory.machine(machine.user_id), machine)

    async def test_calls_are_counted(self) -> None:
        before = self.memory.calls
        await self.memory.machine(directory_suite.anybody())
        self.memory.stale_since()
        self.assertEqual(self.memory.calls, before + 1)
