"""Snapshots are begun when they are due and before sleep, and written down however they end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import MachineSecrets
from matrix.directory import MemoryDirectory
from matrix.errors import Unavailable
from matrix.http import Backend
from matrix.machines import MemoryProvider
from matrix.metrics import Registry, series
from matrix.model import Address, Machine, MachineState, Snapshot, SnapshotStatus, UserId, user_id
from matrix.router.fleet import Fleet
from matrix.router.routes import Route, RouteTable
from matrix.router.snapshots.daemon import Memory, NoAnswer, NotOffered, Place, UnderWay
from matrix.router.snapshots.report import Done, Failed, Outcome, Progress, Unchanged
from matrix.router.snapshots.run import LEASE, LOOKS
from matrix.router.snapshots.taker import STOPPING, Bounds, Taker
from matrix.router.snapshots.timetable import Timetable
from matrix.snapshots import Schedule
from matrix.snapshots.schedule import FIRST_RETRY, LONGEST_RETRY

NOW = 1_795_000_000.0
"""2026-11-18T11:06:40Z"""
INTERVAL = 300.0
BUDGET = 120.0
ALICE, BOB, CAROL = (user_id(letter * 32) for letter in "abc")
NAME = "0123456789abcdef" * 4
NOTHING: Any = None


class Daemon:
    """One machine's, which answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.answers: list[Deferred[Outcome]] = []
        self.told: list[Callable[[Progress], None]] = []
        self.memory: Memory | Exception = Memory(running=False, last=None)
        self.refusal: Exception | None = None
        self.looks = 0

    def answer(self, outcome: Outcome) -> None:
        """Answer the question that waits longest."""
        self.answers.pop(0).callback(outcome)

    def break_off(self) -> None:
        self.answers.pop(0).errback(NoAnswer("the machine broke off"))


class Daemons:
    """Implements L{matrix.router.snapshots.daemon.Daemons}."""

    def __init__(self) -> None:
        self.by_address: dict[str, Daemon] = {}

    def of(self, who: UserId) -> Daemon:
        return self.by_address.setdefault(f"unix:/m/{who}", Daemon())

    async def take(
        self, place: Place, cause: str, told: Callable[[Progress], None], *, needed: bool
    ) -> Outcome:
        daemon = self.by_address.setdefault(str(place.address), Daemon())
        daemon.asked.append((cause, needed))
        if daemon.refusal is not None:
            raise daemon.refusal
        daemon.told.append(told)
        answer: Deferred[Outcome] = Deferred(
            lambda gone: daemon.answers.remove(gone) if gone in daemon.answers else None
        )
        daemon.answers.append(answer)
        return await answer

    async def memory(self, place: Place) -> Memory:
        daemon = self.by_address[str(place.address)]
        daemon.looks += 1
        if isinstance(daemon.memory, Exception):
            raise daemon.memory
        return daemon.memory


def _let_go(taker: Taker) -> None:
    """End what is under way, without a word to anybody."""
    for working in list(taker._working):
        working.cancel()


class TakerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.directory = MemoryDirectory(self.clock)
        self.records = self.directory.snapshots
        self.daemons = Daemons()
        self.routes = RouteTable(self.clock.seconds)
        self.registry = Registry()
        self.taker, self.rounds = self.router("router:1", self.routes)

    def router(self, owner: str, routes: RouteTable, at_once: int = 2) -> tuple[Taker, Timetable]:
        """What takes snapshots in one process."""
        fleet = Fleet(
            self.clock,
            self.directory,
            MemoryProvider(self.clock),
            MachineSecrets("m" * 40),
            NOTHING,
            owner,
        )
        registry = self.registry if owner == "router:1" else Registry()
        taker = Taker(
            fleet,
            self.daemons,
            Schedule(INTERVAL),
            Bounds(at_once, BUDGET),
            registry,
            chance=lambda: 0.0,
        )
        self.addCleanup(_let_go, taker)
        return taker, Timetable(fleet, routes, taker, registry, INTERVAL)

    def now(self, coroutine: Any) -> Any:
        """What a coroutine returns at once."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def machine(self, who: UserId = ALICE, boot_id: str = "one") -> Machine:
        """Somebody's machine that runs."""
        self.now(self.directory.admit(who, ""))
        made = self.now(self.directory.create_machine(who, "memory"))
        found: Machine = self.now(
            self.directory.change(
                made,
                state=MachineState.RUNNING,
                address=Address(path=f"/m/{who}"),
                boot_id=boot_id,
                last_wake_at=datetime.fromtimestamp(self.clock.seconds(), UTC),
            )
        )
        return found

    def awake(self, who: UserId = ALICE, routes: RouteTable | None = None) -> Route:
        """Somebody's machine that this process has awake."""
        machine = self.now(self.directory.machine(who)) or self.machine(who)
        route = (self.routes if routes is None else routes).ensure(who, NOTHING)
        route.row, route.backend = machine, object()  # type: ignore[assignment]
        return route

    def let_pass(self, seconds: float, step: float = 1.0) -> None:
        self.clock.pump([step] * round(seconds / step))

    def go(self) -> None:
        """One round."""
        self.now(self.rounds.go())

    def rows(self, who: UserId = ALICE) -> list[Snapshot]:
        return list(self.now(self.records.of_user(who)))

    def due_in(self, who: UserId = ALICE) -> float | None:
        """Seconds until a user's next snapshot."""
        [found] = [one for one in self.now(self.records.standings()) if one.user_id == who]
        if found.due_at is None:
            return None
        due_at: float = found.due_at.timestamp()
        return due_at - self.clock.seconds()

    def events(self, who: UserId = ALICE) -> list[tuple[str, str]]:
        return [(one.kind, one.cause) for one in self.now(self.directory.events(who))]

    def rest(self, machine: Machine, taker: Taker | None = None) -> Deferred[None]:
        backend: Backend = NOTHING
        saver = taker or self.taker
        return Deferred.fromCoroutine(saver.before_rest(machine, backend, "idle"))

    def counted(self, cause: str, outcome: str) -> float:
        return float(self.registry.counter(series.SNAPSHOTS, cause, outcome).value)


class TimetableTests(TakerTestCase):
    def test_a_machine_in_use_has_one_taken_when_it_is_due_and_again(self) -> None:
        self.awake()
        daemon = self.daemons.of(ALICE)
        self.go()
        self.assertEqual(daemon.asked, [], "it has just been woken")
        self.let_pass(INTERVAL * 0.2 + 1)
        self.go()
        self.assertEqual(daemon.asked, [("interval", False)])
        self.assertTrue(self.taker.holds(ALICE))
        self.go()
        self.assertEqual(len(daemon.asked), 1, "one at a time")
        daemon.answer(Done(NAME, 10, 100))
        self.assertFalse(self.taker.holds(ALICE))
        [row] = self.rows()
        self.assertEqual((row.status, row.restic_id), (SnapshotStatus.DONE, NAME))
        self.assertEqual((row.bytes_added, row.bytes_total, row.cause), (10, 100, "interval"))
        self.assertEqual(self.due_in(), INTERVAL)
        self.let_pass(INTERVAL - 5)
        self.go()
        self.assertEqual(len(daemon.asked), 1)
        self.let_pass(6)
        self.go()
        self.assertEqual(len(daemon.asked), 2)
        self.assertEqual(self.counted("interval", "done"), 1)
        self.assertEqual(self.events(), [], "there would be twelve an hour")

    def test_nothing_changed_leaves_no_row_and_is_asked_again(self) -> None:
        self.awake()
        self.go()
        self.let_pass(INTERVAL)
        self.go()
        self.daemons.of(ALICE).answer(Done(NAME))
        rows = self.rows()
        self.let_pass(INTERVAL)
        self.go()
        self.daemons.of(ALICE).answer(Unchanged(Done(NAME)))
        self.assertEqual(self.rows(), rows)
        self.assertEqual(self.due_in(), INTERVAL)
        self.assertEqual(self.counted("interval", "unchanged"), 1)

    def test_one_that_was_finished_unheard_is_written_down_when_nothing_changed_since(self) -> None:
        self.awake()
        self.go()
        self.let_pass(INTERVAL)
        self.go()
        self.daemons.of(ALICE).answer(Unchanged(Done(NAME, 3, 4)))
        [row] = self.rows()
        self.assertEqual((row.restic_id, row.bytes_total), (NAME, 4))

    def test_nothing_changed_is_not_believed_while_none_is_on_record(self) -> None:
        self.awake()
        self.go()
        self.let_pass(INTERVAL)
        self.go()
        daemon = self.daemons.of(ALICE)
        daemon.answer(Unchanged())
        self.assertEqual(daemon.asked, [("interval", False), ("interval", True)])
        daemon.answer(Done(NAME))
        self.assertEqual(self.rows()[0].restic_id, NAME)

    def test_a_partial_one_is_good_and_told_of(self) -> None:
        self.awake()
        self.go()
        self.let_pass(INTERVAL)
        self.go()
        self.daemons.of(ALICE).answer(Done(NAME, 1, 2, partial=True))
        self.assertTrue(self.rows()[0].partial)
        self.assertEqual(self.events(), [("snapshot", "interval")])

    def test_failures_back_off_and_are_told_of_and_end_with_a_good_one(self) -> None:
        self.awake()
        self.go()
        self.let_pass(INTERVAL)
        for wait in (FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY):
            self.go()
            self.daemons.of(ALICE).answer(Failed("no space left"))
            self.assertEqual(self.due_in(), wait)
            self.let_pass(wait)
        self.now(self.rounds.adopt())
        self.assertEqual(self.registry.gauge(series.SNAPSHOTS_FAILING).value, 1)
        self.assertEqual(self.events(), [("snapshot-failed", "interval")] * 3)
        self.go()
        self.daemons.of(ALICE).answer(Done(NAME))
        self.now(self.rounds.adopt())
        self.assertEqual(self.registry.gauge(series.SNAPSHOTS_FAILING).value, 0)
        self.assertEqual(self.due_in(), INTERVAL)
        self.assertEqual([row.status.value for row in self.rows()], ["done"] + ["failed"] * 3)

    def test_what_an_operator_must_mend_is_tried_hourly(self) -> None:
        self.awake()
        self.go()
        self.let_pass(INTERVAL)
        self.go()
        self.daemons.of(ALICE).answer(Failed("restic is not installed", retry=False))
        self.assertEqual(self.due_in(), LONGEST_RETRY)

    def test_no_more_at_once_than_there_is_room_for(self) -> None:
        for who in (ALICE, BOB, CAROL):
            self.awake(who)
        self.go()
        self.let_pass(INTERVAL)
        self.go()
        asked = [who for who in (ALICE, BOB, CAROL) if self.daemons.of(who).asked]
        self.assertEqual(len(asked), 2)
        self.daemons.of(asked[0]).answer(Done(NAME))
        self.go()
        self.assertTrue(all(self.daemons.of(who).asked for who in (ALICE, BOB, CAROL)))

    def test_a_missed_one_is_caught_up_once(self) -> None:
        route = self.awake()
        self.go()
        backend, route.backend = route.backend, None
        self.let_pass(20 * INTERVAL, step=INTERVAL)
        self.go()
        self.assertEqual(self.daemons.of(ALICE).asked, [], "asleep")
        route.backend = backend
        self.go()
        self.daemons.of(ALICE).answer(Done(NAME))
        self.go()
        self.assertEqual(len(self.daemons.of(ALICE).asked), 1)

    def test_two_processes_that_have_it_awake_take_one(self) -> None:
        routes = RouteTable(self.clock.seconds)
        other, rounds = self.router("router:2", routes)
        self.awake()
        self.awake(routes=routes)
        self.go()
        self.now(rounds.go())
        self.let_pass(INTERVAL)
        self.go()
        self.now(rounds.go())
        self.assertEqual(len(self.daemons.of(ALICE).asked), 1)
        self.assertFalse(other.holds(ALICE))

    def test_a_program_that_takes_none_is_left_alone_until_another_boots(self) -> None:
        route = self.awake()
        self.daemons.of(ALICE).refusal = NotOffered()
        self.go()
        self.let_pass(INTERVAL)
        self.go()
        self.assertEqual(self.rows(), [])
        self.let_pass(2 * LONGEST_RETRY, step=60.0)
        self.go()
        self.assertEqual(len(self.daemons.of(ALICE).asked), 1)
        assert route.row is not None
        self.successResultOf(self.rest(route.row))
        self.assertEqual(len(self.daemons.of(ALICE).asked), 1)
        self.daemons.of(ALICE).refusal = None
        route.row = self.machine(boot_id="two")
        self.go()
        self.assertEqual(len(self.daemons.of(ALICE).asked), 2)

    def test_the_schedule_survives_an_outage_of_the_directory(self) -> None:
        self.awake()
        self.go()
        self.let_pass(INTERVAL)
        self.go()
        self.directory.lose()
        self.daemons.of(ALICE).answer(Done(NAME))
        self.let_pass(5)
        self.assertTrue(self.taker.holds(ALICE))
        self.directory.recover()
        self.let_pass(2)
        self.assertEqual(self.rows()[0].restic_id, NAME)

    def test_how_late_the_latest_is(self) -> None:
        self.awake()
        self.go()
        self.let_pass(INTERVAL)
        self.go()
        self.daemons.of(ALICE).answer(Done(NAME))
        self.let_pass(INTERVAL + 70)
        self.assertEqual(self.registry.number(series.SNAPSHOTS_LATE_SECONDS), 70)


class TroubleTests(TakerTestCase):
    def begun(self) -> Daemon:
        """A snapshot that is being taken."""
        self.awake()
        self.go()
        self.let_pass(INTERVAL)
        self.go()
        return self.daemons.of(ALICE)

    def crash(self) -> None:
        """The router is there no more."""
        _let_go(self.taker)

    def test_one_whose_router_was_stopped_is_looked_after_at_once(self) -> None:
        daemon = self.begun()
        self.now(self.taker.stop())
        self.assertFalse(self.taker.holds(ALICE))
        daemon.memory = Memory(running=True, last=None)
        other, times = self.router("router:2", RouteTable(self.clock.seconds))
        self.now(times.adopt())
        self.assertTrue(other.holds(ALICE))
        daemon.memory = Memory(running=False, last=Done(NAME))
        self.let_pass(2)
        self.assertEqual(self.rows()[0].restic_id, NAME)

    def test_a_router_stops_also_without_the_directory(self) -> None:
        self.begun()
        self.directory.lose()
        self.now(self.taker.stop())
        self.assertFalse(self.taker.holds(ALICE))

    def test_a_machine_that_broke_off_and_goes_on_is_followed(self) -> None:
        daemon = self.begun()
        daemon.memory = Memory(running=True, last=None)
        daemon.break_off()
        self.let_pass(2 * LEASE)
        self.assertEqual(self.now(self.records.take_over("router:2", LEASE, 9)), [])
        daemon.memory = Memory(running=False, last=Done(NAME, 3, 4))
        self.let_pass(2)
        self.assertEqual(self.rows()[0].restic_id, NAME)
        self.assertEqual(len(daemon.asked), 1)

    def test_what_is_on_record_is_not_taken_for_news(self) -> None:
        daemon = self.begun()
        daemon.answer(Done(NAME))
        self.let_pass(INTERVAL + 1)
        self.go()
        daemon.memory = Memory(running=False, last=Done(NAME))
        daemon.break_off()
        self.let_pass(2)
        self.assertEqual(self.rows()[0].status, SnapshotStatus.FAILED)
        self.assertEqual(self.rows()[0].reason, "the machine broke off")

    def test_a_machine_that_does_not_answer_any_more(self) -> None:
        daemon = self.begun()
        daemon.memory = NoAnswer("nobody listens")
        daemon.break_off()
        self.let_pass(LOOKS + 1)
        self.assertEqual(self.rows()[0].reason, "the machine broke off")
        self.assertEqual(self.due_in(), FIRST_RETRY - 2)

    def test_one_that_somebody_else_had_begun_is_ours_when_nobody_knows_it(self) -> None:
        self.daemons.of(ALICE).refusal = UnderWay()
        self.daemons.of(ALICE).memory = Memory(running=True, last=None)
        daemon = self.begun()
        self.let_pass(3)
        daemon.memory = Memory(running=False, last=Done(NAME))
        self.let_pass(2)
        self.assertEqual(self.rows()[0].restic_id, NAME)

    def test_one_whose_router_ended_is_closed_by_another(self) -> None:
        daemon = self.begun()
        self.crash()
        self.assertFalse(self.taker.holds(ALICE))
        _, rounds = self.router("router:2", RouteTable(self.clock.seconds))
        self.now(rounds.adopt())
        self.assertEqual(daemon.looks, 0, "its lease is good")
        self.let_pass(LEASE + 1)
        daemon.memory = Memory(running=False, last=Done(NAME))
        self.now(rounds.adopt())
        self.assertEqual(self.rows()[0].restic_id, NAME)

    def test_one_whose_router_ended_and_whose_machine_sleeps_failed(self) -> None:
        self.begun()
        self.crash()
        machine = self.now(self.directory.machine(ALICE))
        self.now(self.directory.change(machine, state=MachineState.SUSPENDED))
        _, rounds = self.router("router:2", RouteTable(self.clock.seconds))
        self.let_pass(LEASE + 1)
        self.now(rounds.adopt())
        self.assertEqual(self.rows()[0].status, SnapshotStatus.FAILED)
        self.assertIn("router ended", str(self.rows()[0].reason))

    def test_what_another_took_over_is_left_to_it(self) -> None:
        daemon = self.begun()
        self.directory.lose()
        self.let_pass(LEASE + 1)
        self.directory.recover()
        [taken] = self.now(self.records.take_over("router:2", LEASE, 9))
        self.let_pass(20)
        self.assertFalse(self.taker.holds(ALICE))
        self.assertEqual(self.now(self.records.under_way(ALICE)), taken)
        self.assertEqual(daemon.answers, [])

    def test_a_row_that_is_claimed_while_the_machine_goes_to_sleep(self) -> None:
        route = self.awake()
        self.go()
        self.let_pass(INTERVAL)
        route.row = self.now(self.directory.change(route.row, state=MachineState.SUSPENDED))
        self.go()
        self.assertEqual(self.daemons.of(ALICE).asked, [])
        self.assertEqual(self.rows(), [])


class RestTests(TakerTestCase):
    def test_before_sleep_one_is_taken_and_then_none_is_due(self) -> None:
        route = self.awake()
        self.go()
        assert route.row is not None
        resting = self.rest(route.row)
        self.assertEqual(self.daemons.of(ALICE).asked, [("suspend", False)])
        self.assertNoResult(resting)
        self.daemons.of(ALICE).answer(Done(NAME, 1, 1))
        self.successResultOf(resting)
        self.assertIsNone(self.due_in())
        self.assertEqual(self.events(), [("snapshot", "suspend")])

    def test_after_the_next_wake_one_is_due_again(self) -> None:
        route = self.awake()
        self.go()
        assert route.row is not None
        resting = self.rest(route.row)
        self.daemons.of(ALICE).answer(Done(NAME))
        self.successResultOf(resting)
        self.let_pass(5)
        self.awake().row = self.machine()
        self.go()
        self.assertEqual(self.due_in(), INTERVAL * 0.2)

    def test_one_under_way_is_waited_for_and_followed_by_a_last_one(self) -> None:
        route = self.awake()
        self.go()
        self.let_pass(INTERVAL)
        self.go()
        assert route.row is not None
        resting = self.rest(route.row)
        daemon = self.daemons.of(ALICE)
        daemon.answer(Done(NAME))
        self.assertEqual(daemon.asked, [("interval", False), ("suspend", False)])
        daemon.answer(Unchanged(Done(NAME)))
        self.successResultOf(resting)
        self.assertIsNone(self.due_in())

    def test_one_that_another_process_has_taken_is_waited_for(self) -> None:
        route = self.awake()
        other, _ = self.router("router:2", RouteTable(self.clock.seconds))
        assert route.row is not None
        first = self.rest(route.row, other)
        second = self.rest(route.row)
        self.let_pass(3)
        self.assertEqual(len(self.daemons.of(ALICE).asked), 1)
        self.daemons.of(ALICE).answer(Done(NAME))
        self.successResultOf(first)
        self.let_pass(1)
        self.daemons.of(ALICE).answer(Unchanged())
        self.successResultOf(second)

    def test_no_longer_than_the_budget_and_then_it_is_due_when_it_wakes(self) -> None:
        route = self.awake()
        assert route.row is not None
        resting = self.rest(route.row)
        self.let_pass(BUDGET - 1)
        self.assertNoResult(resting)
        self.let_pass(1)
        self.successResultOf(resting)
        self.assertFalse(self.taker.holds(ALICE))
        self.assertIn("120 s", str(self.rows()[0].reason))
        self.assertEqual(self.due_in(), FIRST_RETRY)

    def test_waiting_for_a_turn_is_none_of_its_time(self) -> None:
        routes = [self.awake(who) for who in (ALICE, BOB, CAROL)]
        first, second, third = [self.rest(route.row) for route in routes if route.row is not None]
        self.let_pass(BUDGET - 1)
        self.daemons.of(ALICE).answer(Done(NAME))
        self.successResultOf(first)
        self.let_pass(1)
        self.successResultOf(second)
        self.let_pass(BUDGET - 2)
        self.assertNoResult(third)
        self.daemons.of(CAROL).answer(Done(NAME))
        self.successResultOf(third)

    def test_who_comes_back_waits_for_nothing_and_the_snapshot_goes_on(self) -> None:
        route = self.awake()
        self.go()
        assert route.row is not None
        resting = self.rest(route.row)
        resting.cancel()
        self.failureResultOf(resting, CancelledError)
        self.assertTrue(self.taker.holds(ALICE), "a machine that takes one is not put to sleep")
        self.daemons.of(ALICE).answer(Done(NAME))
        self.assertEqual(self.rows()[0].restic_id, NAME)
        self.assertIsNone(self.due_in())
        self.let_pass(INTERVAL)
        self.go()
        self.assertIsNotNone(self.due_in(), "it stayed awake, so that one is due again")

    def test_a_failure_lets_it_sleep(self) -> None:
        route = self.awake()
        assert route.row is not None
        resting = self.rest(route.row)
        self.daemons.of(ALICE).answer(Failed("no space left"))
        self.successResultOf(resting)

    def test_an_outage_of_the_directory_lets_it_sleep(self) -> None:
        route = self.awake()
        assert route.row is not None
        self.directory.lose()
        self.successResultOf(self.rest(route.row))

    def test_a_machine_without_an_address_has_none(self) -> None:
        row = Machine(ALICE, "memory", MachineState.DRAINING, generation=1)
        self.successResultOf(self.rest(row))


class DemandTests(TakerTestCase):
    def take(self, told: Callable[[Progress], None] = lambda at: None) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.taker.take_now(ALICE, "operator", told))

    def test_progress_is_told(self) -> None:
        self.machine()
        seen: list[Progress] = []
        taking = self.take(seen.append)
        [told] = self.daemons.of(ALICE).told
        told(Progress("backup", 1, 2, 3))
        self.assertEqual(seen, [Progress("backup", 1, 2, 3)])
        self.assertEqual(self.taker.progress(ALICE), seen[0])
        self.daemons.of(ALICE).answer(Done(NAME))
        self.assertEqual(self.successResultOf(taking), Done(NAME))
        self.assertEqual(self.events(), [("snapshot", "operator")])

    def test_one_that_is_under_way_is_followed_by_one_that_has_all(self) -> None:
        self.machine()
        first, second = self.take(), self.take()
        self.daemons.of(ALICE).answer(Done(NAME))
        self.assertEqual(self.successResultOf(first), Done(NAME))
        self.assertNoResult(second)
        self.daemons.of(ALICE).answer(Unchanged(Done(NAME)))
        self.assertEqual(self.successResultOf(second), Done(NAME), "it had all of it already")
        self.assertEqual(len(self.daemons.of(ALICE).asked), 2)

    def test_who_leaves_does_not_end_it(self) -> None:
        self.machine()
        taking = self.take()
        taking.cancel()
        self.failureResultOf(taking, CancelledError)
        self.daemons.of(ALICE).answer(Done(NAME))
        self.assertEqual(self.rows()[0].restic_id, NAME)

    def test_a_machine_that_is_not_awake(self) -> None:
        self.now(self.directory.admit(ALICE, ""))
        self.failureResultOf(self.take(), Unavailable)

    def test_who_waits_while_the_router_stops_is_told_so(self) -> None:
        self.machine()
        taking = self.take()
        self.now(self.taker.stop())
        self.assertIs(self.successResultOf(taking), STOPPING)
        self.assertEqual(self.rows()[0].status, SnapshotStatus.STARTED, "the machine goes on")

    def test_a_sleeping_machine_is_safe_if_it_was_not_used_since_its_last(self) -> None:
        machine = self.machine()
        self.let_pass(5)
        resting = self.rest(machine)
        self.daemons.of(ALICE).answer(Done(NAME))
        self.successResultOf(resting)
        self.assertTrue(self.now(self.taker.is_safe(machine)))
        self.let_pass(5)
        later = self.machine()
        self.assertFalse(self.now(self.taker.is_safe(later)))
