"""A snapshot comes onto a machine in the place of its data, and nothing of either is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import Upkeep
from matrix.errors import Conflict, Forbidden, NotFound, Unavailable
from matrix.machines import ProviderError
from matrix.model import MachineState, Snapshot, SnapshotStatus
from matrix.router.reverting import Reverting, Wish, still_wanted
from matrix.router.snapshots.report import Done, Failed, Outcome, Unchanged
from matrix.snapshots import Dated, ResticFailed
from tests.router.world import ALICE, NOW, World

DAWN = datetime.fromtimestamp(NOW - 3600, UTC)
ID = "ab" * 32


class FakeKeeper:
    """Knows one snapshot, or fails."""

    error: Exception | None = None

    async def snapshots(self, who: object) -> list[Dated]:
        if self.error is not None:
            raise self.error
        return [Dated(ID, DAWN)]


class RevertingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.keeper: Any = FakeKeeper()
        self.outcome: Outcome | None = Unchanged()
        self.taken = 0
        fleet: Any = self.world.fleet
        self.reverting = Reverting(fleet, self.world.waker, self.take, lambda: self.keeper)

    async def take(self, who: object, cause: str, told: object) -> Outcome | None:
        self.taken += 1
        return self.outcome

    def outcome_of(self, coroutine: Any) -> Any:
        """What comes of it, once time has passed."""
        results: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        for _ in range(400):
            if results:
                return results[0]
            self.world.clock.advance(0.05)
        raise self.failureException("nothing came of it")

    def done(self, coroutine: Any) -> Any:
        result = self.outcome_of(coroutine)
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def refused(self, kind: type[Exception], wish: Wish = Wish()) -> Any:  # noqa: B008 -- frozen
        result = self.outcome_of(self.reverting.restore(ALICE, wish))
        assert isinstance(result, Failure), result
        assert isinstance(result.value, kind), result
        return result.value

    def calls(self) -> list[str]:
        return [name for name, *_ in self.world.provider_twin.calls]

    def row(self) -> Any:
        return self.done(self.world.store.machine(ALICE))

    def upkeep(self) -> Upkeep:
        found: Upkeep = self.done(self.world.store.upkeep.find(ALICE))
        return found

    def awake(self) -> None:
        self.done(self.world.waker.wake(ALICE, "request"))

    def test_it_begins_anew_and_answers(self) -> None:
        self.awake()
        before = self.row().machine_id
        self.assertEqual(self.done(self.reverting.restore(ALICE, Wish())), Dated(ID, DAWN))
        self.assertEqual(self.taken, 1, "what there was is in a snapshot")
        calls = self.calls()
        for one, other in (("suspend", "stop"), ("stop", "relocate")):
            self.assertLess(calls.index(one), calls.index(other))
        self.assertEqual(calls[-1], "start")
        row = self.row()
        self.assertIs(row.state, MachineState.RUNNING)
        self.assertNotEqual(row.machine_id, before)
        self.assertEqual(row.former_machine_id, before, "kept aside until others delete it")
        self.assertIsNone(self.upkeep().wanted)
        kinds = [event.kind for event in self.done(self.world.store.events(ALICE))]
        self.assertIn("restore", kinds)

    def test_what_is_wanted_is_on_record_before_the_data_go(self) -> None:
        self.awake()
        seen: list[str | None] = []

        def step(name: str, when: str) -> None:
            if (name, when) == ("relocate", "before"):
                seen.append(self.done(self.world.store.upkeep.find(ALICE)).wanted)
                raise ProviderError("no room")

        self.world.provider.step = step
        self.refused(Unavailable)
        self.assertEqual(seen, [ID])
        self.world.provider.step = None
        self.awake()
        self.assertIsNone(self.row().former_machine_id, "it is as it was")

    def test_what_cannot_be_saved_is_not_replaced(self) -> None:
        self.awake()
        for outcome in (Failed("the disk is full"), None):
            self.outcome = outcome
            self.assertEqual(self.refused(Conflict).reason, "unsaved")
        self.assertNotIn("relocate", self.calls())
        self.done(self.reverting.restore(ALICE, Wish(discard=True)))
        self.assertIn("relocate", self.calls())

    def test_it_was_saved_just_now(self) -> None:
        self.awake()
        self.outcome = Done("cd" * 32)
        self.done(self.reverting.restore(ALICE, Wish()))

    def test_who_leaves_does_not_end_it(self) -> None:
        self.awake()
        waiting = Deferred.fromCoroutine(self.reverting.restore(ALICE, Wish()))
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        for _ in range(100):
            self.world.clock.advance(0.05)
        self.assertIn("relocate", self.calls())
        self.assertIs(self.row().state, MachineState.RUNNING)

    def test_a_lost_machine_needs_no_more_than_to_be_told(self) -> None:
        self.awake()
        machine = self.row()
        self.done(self.world.store.change(machine, state=MachineState.LOST))
        self.done(self.reverting.restore(ALICE, Wish()))
        self.assertNotIn("relocate", self.calls())
        self.assertEqual(self.taken, 0)
        self.assertIs(self.row().state, MachineState.RUNNING)

    def test_there_is_nothing_to_restore(self) -> None:
        self.refused(NotFound)
        self.awake()
        self.assertEqual(self.refused(NotFound, Wish(id="ffff")).reason, "snapshot")
        self.keeper.error = ResticFailed("it cannot be reached")
        self.assertEqual(self.refused(Unavailable).reason, "store")
        self.keeper = None
        self.assertEqual(self.refused(Forbidden).reason, "off")


class StillWantedTests(SynchronousTestCase):
    def taken(self, at: datetime) -> Snapshot:
        return Snapshot(1, ALICE, "interval", SnapshotStatus.DONE, started_at=at, restic_id="new")

    def test_until_a_newer_one_is_taken(self) -> None:
        noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
        wish = Upkeep(ALICE, wanted=ID, wanted_at=noon)
        self.assertEqual(still_wanted(wish, None), ID)
        self.assertEqual(still_wanted(wish, self.taken(noon.replace(hour=11))), ID)
        self.assertIsNone(still_wanted(wish, self.taken(noon.replace(hour=13))))
        self.assertIsNone(still_wanted(Upkeep(ALICE), None))
