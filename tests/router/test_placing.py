"""Where a machine is, as its router sees to it: moved when it must be, and settled after."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import Unavailable
from matrix.machines import ProviderError, Stranded
from matrix.model import Machine, MachineState
from matrix.router.rescue import DOWN_AFTER
from matrix.router.settling import Settling
from matrix.router.told import Surroundings
from tests.router.world import ALICE, World, outcome, run

FULL = Stranded("no room on its host", can_copy=True, retry_after=9.0)
DOWN = Stranded("its host is down", can_copy=False, retry_after=5.0)


class PlacingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.asleep()
        self.world.provider_twin.calls.clear()

    def asked(self) -> list[str]:
        return [method for method, _ in self.world.provider_twin.calls if method != "follow"]

    def wake(self) -> list[object]:
        answer = outcome(self.world.want())
        self.world.let_pass(2.0)
        return answer

    def refused(self) -> str:
        """What the operator reads of a wake that failed."""
        [error] = self.wake()
        assert isinstance(error, Unavailable)
        return str(self.world.row().state_reason)

    def change(self, **fields: object) -> Machine:
        [row] = run(self.world.store.change(self.world.row(), **fields))
        return row

    def settle(self) -> None:
        run(Settling(self.world.fleet).run())


class FullHostTests(PlacingCase):
    """There is no room for a machine where it is."""

    def test_it_is_moved_within_the_same_wake(self) -> None:
        before = self.world.row()
        self.world.provider_twin.fail("start", FULL)
        self.assertEqual(self.wake(), [self.world.route()])
        self.assertEqual(self.asked(), ["start", "relocate", "start"])
        row = self.world.row()
        self.assertEqual(row.former_machine_id, before.machine_id)
        self.assertNotEqual(row.machine_id, before.machine_id)
        self.assertIs(row.state, MachineState.RUNNING)
        self.assertFalse(row.on_trial, "it has answered")
        self.assertIn(("moved", "no-room"), self.world.events())
        self.assertEqual(self.world.fleet.moves["no-room"], 1)

    def test_the_former_one_goes_after_the_new_one_answered(self) -> None:
        self.world.provider_twin.fail("start", FULL)
        self.wake()
        self.assertNotIn("confirm", self.asked())
        self.settle()
        self.assertIn("confirm", self.asked())
        self.assertIsNone(self.world.row().former_machine_id)
        self.assertEqual(self.world.fleet.moved, set())

    def test_what_cannot_be_deleted_yet_is_tried_again(self) -> None:
        self.world.provider_twin.fail("start", FULL)
        self.wake()
        self.world.provider_twin.fail("confirm", ProviderError("not now"))
        self.settle()
        self.assertIsNotNone(self.world.row().former_machine_id)
        self.settle()
        self.assertIsNone(self.world.row().former_machine_id)

    def test_one_that_never_answers_keeps_the_former_one(self) -> None:
        self.world.provider_twin.fail("start", FULL)
        self.world.place().deaf = True
        outcome(self.world.want())
        self.world.let_pass(90.0, step=0.5)
        row = self.world.row()
        self.assertIs(row.state, MachineState.FAILED)
        self.assertTrue(row.on_trial)
        self.settle()
        self.assertIsNotNone(self.world.row().former_machine_id)

    def test_one_on_trial_is_not_used_before_it_answered_as_such(self) -> None:
        """Somebody saw it run; that it answers has to be written before anybody uses it."""
        self.change(state=MachineState.RUNNING, on_trial=True, former_machine_id="memory-0")
        run(self.world.waker.adopt(ALICE))
        self.world.let_pass(0.2)
        self.assertIsNone(self.world.route().backend)
        self.assertEqual(self.wake(), [self.world.route()])
        self.assertEqual(self.asked(), ["start"])
        self.assertFalse(self.world.row().on_trial)
        self.assertEqual(self.world.fleet.moved, {ALICE})

    def test_another_router_that_finds_it_awake_settles_it_too(self) -> None:
        self.world.provider_twin.fail("start", FULL)
        self.wake()
        other = World(within=self.world)
        run(other.waker.adopt(ALICE))
        other.let_pass(0.2)
        self.assertEqual(other.fleet.moved, {ALICE})

    def test_there_is_no_room_elsewhere_either(self) -> None:
        self.world.provider_twin.fail("start", FULL)
        self.world.provider_twin.fail("relocate", ProviderError("no room", retry_after=30.0))
        self.assertEqual(self.refused(), "no room")
        self.world.let_pass(30.0)
        self.assertEqual(self.wake(), [self.world.route()])

    def test_a_lost_one_without_room_beside_its_data_is_moved(self) -> None:
        self.change(state=MachineState.LOST)
        self.world.provider_twin.fail("provision", FULL)
        self.assertEqual(self.wake(), [self.world.route()])
        self.assertEqual(self.asked()[:2], ["provision", "relocate"])


class HostDownTests(PlacingCase):
    """Its host does not answer."""

    def setUp(self) -> None:
        super().setUp()
        self.world.provider_twin.fail("start", DOWN, times=9)
        self.world.fleet._around = Surroundings("http://router.example", snapshots=True)

    def snapshot(self) -> None:
        """A good one, which has everything."""
        store = self.world.store.snapshots
        [begun] = run(store.begin(ALICE, "suspend", "router", 60.0))
        assert begun is not None
        run(store.finish(begun, "ab" * 32, 1, 1, None))
        self.change(last_active_at=begun.started_at - timedelta(seconds=1))

    def down_for(self, span: timedelta) -> None:
        self.change(stranded_at=datetime.now(UTC) - span)

    def test_it_is_waited_for(self) -> None:
        self.snapshot()
        self.assertIn("begins anew from its snapshot (whole)", self.refused())
        self.assertNotIn("relocate", self.asked())
        self.assertIsNotNone(self.world.row().stranded_at)

    def test_then_it_begins_anew(self) -> None:
        self.snapshot()
        self.down_for(DOWN_AFTER)
        self.world.provider_twin._failures["start"] = [DOWN]
        self.assertEqual(self.wake(), [self.world.route()])
        self.assertIsNone(self.world.row().stranded_at)
        self.assertIn(("moved", "host-down"), self.world.events())

    def test_without_a_snapshot_it_never_does(self) -> None:
        self.down_for(timedelta(days=1))
        self.assertIn("there is no snapshot of its data", self.refused())
        self.assertNotIn("relocate", self.asked())

    def test_nor_where_nobody_would_restore_it(self) -> None:
        self.snapshot()
        self.down_for(timedelta(days=1))
        self.world.fleet._around = Surroundings("http://router.example", snapshots=False)
        self.assertIn("there is no snapshot", self.refused())

    def test_a_host_that_is_back_is_no_longer_waited_for(self) -> None:
        self.refused()
        self.world.let_pass(5.0)
        self.world.provider_twin._failures["start"] = []
        self.assertEqual(self.wake(), [self.world.route()])
        self.assertIsNone(self.world.row().stranded_at)

    def test_a_full_host_whose_data_cannot_be_copied(self) -> None:
        self.world.provider_twin._failures["start"] = [FULL]
        self.world.provider_twin.fail("relocate", DOWN)
        self.assertIn("its host is down; there is no snapshot", self.refused())
