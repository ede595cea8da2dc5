"""What is done for whom and when: at night, one user at a time, again if it did not go well."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import Chore, MemoryDirectory, Upkeep
from matrix.machines import ProviderError
from matrix.metrics import Registry, series
from matrix.model import UserId, UserState
from matrix.router.caretaker import DAY, Caretaker, Times, Window
from matrix.snapshots import Drilled, RepositoryBusy, ResticFailed
from matrix.snapshots.keeper import Scrubbed, Thinned

ALICE = UserId("0a1b2c3d-0000-4000-8000-00000000000a")
NIGHT = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
TIMES = Times(Window((1, 5)), scrub=7 * DAY, drill=DAY, grace=30 * DAY)


class FakeKeeper:
    """Does what it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.waiting: Deferred[None] | None = None
        self.objects = 3
        self.mark = "mark"

    async def _do(self, what: str) -> None:
        self.calls.append(what)
        if self.waiting is not None:
            await self.waiting
        if self.error is not None:
            raise self.error

    async def thin(self, who: UserId, mark: str | None, noted: object) -> Thinned:
        await self._do("thin")
        return Thinned(frozenset({"a"}), 2, self.mark)

    async def scrub(self, who: UserId) -> Scrubbed:
        await self._do("scrub")
        return Scrubbed(10, 1000, ("a",))

    async def drill(self, who: UserId) -> Drilled:
        await self._do("drill")
        return Drilled("a", 5, 1 << 30, 12.5)

    async def erase(self, who: UserId) -> int:
        await self._do("erase")
        count, self.objects = self.objects, 0
        return count


class CaretakerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NIGHT.timestamp())
        self.directory = MemoryDirectory(self.clock)
        self.run_now(self.directory.admit(ALICE, ""))
        self.run_now(self.directory.create_machine(ALICE, "local"))
        self.keeper: Any = FakeKeeper()
        self.registry = Registry()
        self.gone = True
        self.caretaker = self.another("box-1")

    def another(self, owner: str) -> Caretaker:
        """One more box."""
        return Caretaker(
            self.clock,
            self.directory,
            self.keeper,
            self.farewell,
            owner,
            TIMES,
            self.registry,
            lambda: datetime.fromtimestamp(self.clock.seconds(), UTC),
        )

    async def farewell(self, who: UserId) -> bool:
        self.keeper.calls.append("farewell")
        return self.gone

    def run_now(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def round(self) -> list[str]:
        """What one round does."""
        self.keeper.calls.clear()
        self.run_now(self.caretaker.round())
        return list(self.keeper.calls)

    def row(self) -> Upkeep:
        found = self.run_now(self.directory.upkeep.find(ALICE))
        assert isinstance(found, Upkeep)
        return found

    def events(self) -> list[str]:
        found = self.run_now(self.directory.events(ALICE))
        return [f"{event.kind} {event.cause}" for event in reversed(found)]

    def count(self, chore: Chore, outcome: str) -> float:
        return self.registry.counter(series.UPKEEP, chore.value, outcome).value

    def test_all_that_is_due_is_done_once(self) -> None:
        self.assertEqual(self.round(), ["thin", "drill", "scrub"])
        self.assertEqual(self.round(), [])
        self.assertEqual(self.events(), ["upkeep thin", "upkeep drill", "upkeep scrub"])
        self.assertEqual(self.row().drill_seconds, 12.5)
        self.assertEqual(self.registry.gauge(series.DRILL_BYTES).value, 1 << 30)
        self.clock.advance(DAY)
        self.assertEqual(self.round(), ["drill", "thin"])
        self.clock.advance(6 * DAY)
        self.assertEqual(self.round(), ["drill", "thin", "scrub"])

    def test_by_day_nothing_is_done(self) -> None:
        self.clock.advance(4 * 3600)
        self.assertEqual(self.round(), [])

    def test_failures_are_told_and_tried_again(self) -> None:
        self.keeper.error = ResticFailed("restic snapshots ended with 1: Fatal: wrong password")
        self.assertEqual(self.round(), ["thin", "scrub"])
        self.assertEqual(self.row().failures, 1)
        self.assertIn("scrub: restic snapshots ended", self.row().trouble or "")
        self.assertEqual(self.registry.gauge(series.UPKEEP_TROUBLED).value, 1)
        self.assertEqual(self.count(Chore.THIN, "failed"), 1)
        self.assertIn("upkeep thin-failed", self.events())
        self.clock.advance(899)
        self.assertEqual(self.round(), [])
        self.keeper.error = None
        self.clock.advance(1)
        self.assertEqual(self.round(), ["thin", "drill", "scrub"])
        self.assertEqual((self.row().trouble, self.row().failures), (None, 0))
        self.assertEqual(self.registry.gauge(series.UPKEEP_TROUBLED).value, 0)

    def test_what_nobody_foresaw_keeps_no_others_waiting(self) -> None:
        self.keeper.error = ZeroDivisionError("of ours")
        self.assertEqual(self.round(), ["thin", "scrub"])
        self.assertEqual(self.row().trouble, "scrub: of ours")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_what_takes_for_ever_is_given_up(self) -> None:
        self.keeper.waiting = Deferred()
        first = Deferred.fromCoroutine(self.caretaker.round())
        self.clock.pump([30.0] * (6 * 120 - 1))
        self.assertNoResult(first)
        self.keeper.waiting = None
        self.clock.advance(30)
        self.successResultOf(first)
        self.assertIn("thin-failed", str(self.events()))
        self.assertEqual(self.row().trouble, "thin: it took longer than 6 h")

    def test_a_repository_in_use_is_left_for_a_while(self) -> None:
        self.keeper.error = RepositoryBusy("another works on it")
        self.assertEqual(self.round(), ["thin", "scrub"])
        self.assertIsNone(self.row().trouble)
        self.assertEqual(self.count(Chore.THIN, "busy"), 1)

    def test_snapshots_on_record_without_a_repository_are_an_alarm(self) -> None:
        self.snapshot("a")
        self.keeper.mark = ""
        self.round()
        self.assertIn("there is no repository", self.row().trouble or "")
        self.assertIsNotNone(self.run_now(self.directory.snapshots.newest(ALICE)))

    def snapshot(self, restic_id: str) -> None:
        """One that was taken two hours ago."""
        snapshots = self.directory.snapshots
        taken = self.run_now(snapshots.begin(ALICE, "operator", "box", 60.0))
        self.run_now(snapshots.finish(taken, restic_id, 1, 2, None))
        self.clock.advance(7200)

    def test_what_was_found_right_is_verified_and_what_is_gone_forgotten(self) -> None:
        self.snapshot("a")
        self.snapshot("b")
        self.clock.advance(DAY - 4 * 3600)
        self.round()
        [left] = self.run_now(self.directory.snapshots.of_user(ALICE))
        self.assertEqual(left.restic_id, "a")
        self.assertIsNotNone(left.verified_at)

    def test_two_boxes_never_do_the_same(self) -> None:
        self.keeper.waiting = Deferred()
        first = Deferred.fromCoroutine(self.caretaker.round())
        self.run_now(self.another("box-2").round())
        self.assertEqual(self.keeper.calls, ["thin"])
        for _ in range(20):  # the claim is held for as long as it takes
            self.clock.advance(30)
            self.run_now(self.another("box-2").round())
        self.assertEqual(self.keeper.calls, ["thin"])
        waiting, self.keeper.waiting = self.keeper.waiting, None
        waiting.callback(None)
        self.successResultOf(first)
        self.assertEqual(self.count(Chore.THIN, "done"), 1)

    def test_what_another_box_has_taken_over_is_given_up(self) -> None:
        self.keeper.waiting = Deferred()
        first = Deferred.fromCoroutine(self.caretaker.round())
        upkeep: Any = self.directory.upkeep
        upkeep._leases.clear()
        waiting, self.keeper.waiting = self.keeper.waiting, None
        self.clock.advance(30)
        self.assertTrue(waiting.called, "cancelled")
        self.successResultOf(first)

    def test_stopping_breaks_off(self) -> None:
        self.keeper.waiting = Deferred()
        self.caretaker.start()
        self.assertEqual(self.keeper.calls, ["thin"])
        self.caretaker.stop()
        self.clock.advance(1000)
        self.assertEqual(self.keeper.calls, ["thin"])
        self.assertIsNone(self.row().trouble)

    def test_an_outage_of_the_directory_is_waited_for(self) -> None:
        self.caretaker.start()
        self.directory.lose()
        self.clock.advance(600)
        self.directory.recover()
        self.clock.advance(DAY)
        self.assertGreaterEqual(self.count(Chore.THIN, "done"), 2)
        self.caretaker.stop()

    def delete(self) -> None:
        self.run_now(self.directory.set_user_state(ALICE, UserState.DELETED))

    def test_the_deleted_are_erased_after_the_grace_at_any_hour(self) -> None:
        self.delete()
        self.assertEqual(self.round(), [])
        self.clock.advance(30 * DAY + 8 * 3600)
        self.assertEqual(self.round(), ["farewell", "erase"])
        self.assertIsNone(self.row().erased_at, "what came meanwhile is looked for once more")
        self.clock.advance(3600)
        self.assertEqual(self.round(), ["farewell", "erase"])
        self.assertIsNotNone(self.row().erased_at)
        self.clock.advance(100 * DAY)
        self.assertEqual(self.round(), [])

    def test_their_machine_goes_first(self) -> None:
        self.delete()
        self.clock.advance(30 * DAY)
        self.gone = False
        self.assertEqual(self.round(), ["farewell"])
        self.assertEqual(self.count(Chore.ERASE, "busy"), 1)
        self.gone = True
        self.clock.advance(900)
        self.assertEqual(self.round(), ["farewell", "erase"])

    def test_a_provider_in_trouble(self) -> None:
        async def refuse(who: UserId) -> bool:
            raise ProviderError("the volume cannot be deleted")

        self.caretaker._farewell = refuse
        self.delete()
        self.clock.advance(30 * DAY)
        self.assertEqual(self.round(), [])
        self.assertEqual(self.row().trouble, "erase: the volume cannot be deleted")


class WindowTests(SynchronousTestCase):
    def test_hours(self) -> None:
        for hours, within, without in (
            ((1, 5), (1, 4), (0, 5)),
            ((22, 4), (22, 3), (4, 21)),
            ((0, 24), (0, 23), ()),
            (None, (), (0, 12)),
        ):
            window = Window(hours)
            for hour in within:
                self.assertTrue(window.holds(NIGHT.replace(hour=hour)), (hours, hour))
            for hour in without:
                self.assertFalse(window.holds(NIGHT.replace(hour=hour)), (hours, hour))

    def test_edges(self) -> None:
        self.assertTrue(Window((1, 5)).holds(NIGHT.replace(hour=5) - timedelta(seconds=1)))
