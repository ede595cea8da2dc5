"""The in-memory twin passes the directory's contract, and has its outages on demand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from matrix.directory import DirectoryUnavailable, MemoryDirectory
from matrix.model import AccessChange, User, UserId, UserState
from matrix.testing import (
    awake_suite,
    busy_suite,
    directory_suite,
    housekeeping_suite,
    sessions_suite,
    sign_ins_suite,
    snapshots_suite,
    stock_suite,
    tickets_suite,
    upkeep_suite,
    wakes_suite,
)


class MemoryCase(directory_suite.DirectoryCase, TestCase):
    """A directory in memory, and a clock that the test moves."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.directory = self.memory = MemoryDirectory(self.clock)

    async def put_user(self, user: User) -> None:
        self.memory.put_user(user)

    async def drop_machine(self, user_id: UserId) -> None:
        self.memory.drop_machine(user_id)

    async def eventually(self, condition: Callable[[], bool]) -> None:
        self.assertTrue(condition())


class MemoryContractTests(directory_suite.DirectoryContract, MemoryCase):
    """Every test of the contract, without a reactor's turn."""

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
            self.memory.set_user_state(machine.user_id, UserState.BLOCKED),
            self.memory.not_active([machine.user_id]),
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


class MemorySessionsTests(sessions_suite.SessionsContract, MemoryCase):
    """Every test of the sessions' contract, without a reactor's turn."""

    def now(self) -> float:
        return self.clock.seconds()

    async def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def test_an_outage(self) -> None:
        session = await self.signed_in()
        assert session.user_id is not None
        heard: list[AccessChange | None] = []
        self.sessions.watch(heard.append)
        self.memory.lose()
        for call in (
            self.sessions.note({session.id: (session.user_id, 1.0)}),
            self.sessions.newest([session.id]),
            self.sessions.of_user(session.user_id),
            self.sessions.revoke(session.id, "operator"),
            self.sessions.revoke_user(session.user_id, "operator"),
            self.sessions.revoked(),
            self.sessions.purge(),
        ):
            await self.raises(DirectoryUnavailable, call)
        self.assertEqual(heard, [])
        self.memory.recover()
        self.assertEqual(heard, [None])
        self.assertEqual(await self.row(session.user_id, session.id), session)


class MemoryBusyTests(busy_suite.BusyContract, MemoryCase):
    """Every test of the leases' contract, without a reactor's turn."""

    def now(self) -> float:
        return self.clock.seconds()

    async def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def test_an_outage(self) -> None:
        who = (await self.somebody()).user_id
        self.memory.lose()
        await self.raises(DirectoryUnavailable, self.busy.hold(who, "indexing", 1.0, 1.0))
        await self.raises(DirectoryUnavailable, self.busy.end(who))
        await self.raises(DirectoryUnavailable, self.busy.of([who]))


class MemoryWakesTests(wakes_suite.WakesContract, MemoryCase):
    """Every test of the contract of wakes, without a reactor's turn."""

    async def test_an_outage(self) -> None:
        machine = await self.somebody()
        self.memory.lose()
        await self.raises(DirectoryUnavailable, self.wakes.find(machine.user_id))
        await self.raises(DirectoryUnavailable, self.wakes.change(machine, "wake", "x", {}))


class MemoryAwakeTests(awake_suite.AwakeContract, MemoryCase):
    """Every test of the contract of who is awake, without a reactor's turn."""

    async def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def test_an_outage(self) -> None:
        self.memory.lose()
        for call in (
            self.awake.top(1, 1),
            self.awake.of_user(directory_suite.anybody(), 1),
            self.awake.fleet(),
            self.awake.purge(),
        ):
            await self.raises(DirectoryUnavailable, call)


class MemoryStockTests(stock_suite.StockContract, MemoryCase):
    """Every test of the stock's contract, without a reactor's turn."""

    async def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def test_an_outage(self) -> None:
        place = await self.filled()
        self.memory.lose()
        for call in (
            self.stock.begin("fly", 2, "a", "router"),
            self.stock.surplus("fly", 0, "a", "router"),
            self.stock.change(place),
            self.stock.ready(place),
            self.stock.drop(place),
            self.stock.claim(place, "a", "claimed"),
            self.stock.places("fly"),
            self.stock.count("fly", "a"),
        ):
            await self.raises(DirectoryUnavailable, call)


class MemoryTicketsTests(tickets_suite.TicketsContract, MemoryCase):
    """Every test of the tickets' contract, without a reactor's turn."""

    async def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def count(self) -> int:
        return len(self.memory.tickets._tickets)

    async def test_an_outage(self) -> None:
        digest = await self.kept(self.somebody())
        self.memory.lose()
        await self.raises(DirectoryUnavailable, self.tickets.keep(digest, self.somebody(), 1.0))
        await self.raises(DirectoryUnavailable, self.tickets.take(digest))


class MemorySnapshotsTests(snapshots_suite.SnapshotsContract, MemoryCase):
    """Every test of the snapshots' contract, without a reactor's turn."""

    async def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def test_an_outage(self) -> None:
        begun = await self.begun()
        self.memory.lose()
        for call in (
            self.snapshots.enroll({begun.user_id: 1.0}),
            self.snapshots.claim([begun.user_id], "interval", "a", 1.0, 1),
            self.snapshots.begin(begun.user_id, "operator", "a", 1.0),
            self.snapshots.under_way(begun.user_id),
            self.snapshots.prolong(begun, 1.0),
            self.snapshots.finish(begun, "one", 1, 1, 1.0),
            self.snapshots.drop(begun, 1.0),
            self.snapshots.fail(begun, "why", 1.0),
            self.snapshots.take_over("a", 1.0, 1),
            self.snapshots.of_user(begun.user_id),
            self.snapshots.newest(begun.user_id),
            self.snapshots.standings(),
            self.snapshots.failing(),
            self.snapshots.verified(begun.user_id, ["one"]),
            self.snapshots.keep_only(begun.user_id, []),
            self.snapshots.purge(1.0),
        ):
            await self.raises(DirectoryUnavailable, call)
        self.memory.recover()
        self.assertEqual(await self.snapshots.under_way(begun.user_id), begun)


class MemorySignInsTests(sign_ins_suite.SignInsContract, MemoryCase):
    """Every test of the sign-ins' contract, without a reactor's turn."""

    def now(self) -> float:
        return self.clock.seconds()

    async def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def test_an_outage(self) -> None:
        sign_in = await self.signed_in()
        self.memory.lose()
        for call in (
            self.sign_ins.add(sign_in),
            self.sign_ins.find(sign_in.id),
            self.sign_ins.claim(sign_in, "a", 1.0),
            self.sign_ins.replace(sign_in, b"new"),
            self.sign_ins.release(sign_in, "a"),
            self.sign_ins.remove(sign_in.id),
            self.sign_ins.purge(),
        ):
            await self.raises(DirectoryUnavailable, call)
        self.memory.recover()
        self.assertEqual(await self.sign_ins.find(sign_in.id), sign_in)


class MemoryHousekeepingTests(housekeeping_suite.HousekeepingContract, MemoryCase):
    """Every test of the housekeeping's contract."""

    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(1_795_000_000)

    def now(self) -> float:
        return self.clock.seconds()

    async def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)


class MemoryUpkeepTests(upkeep_suite.UpkeepContract, MemoryCase):
    """Every test of the upkeep's contract."""

    async def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
