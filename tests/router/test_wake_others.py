"""What happens to machines without our doing: changed rows, deaths, and those found running."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from matrix.model import MachineState, User, UserState
from matrix.router.heeding import LOOK_INTERVAL
from tests.router.world import ALICE, World, outcome, run


class ChangesTests(SynchronousTestCase):
    """What others do to the row."""

    def setUp(self) -> None:
        self.world = World()
        self.route = self.world.awake()

    def test_another_boot_means_other_connections(self) -> None:
        before = self.route.backend
        run(self.world.store.change(self.world.row(), boot_id="another"))
        self.assertIsNone(self.route.backend)
        assert before is not None
        self.assertTrue(before.closed)

    def test_a_row_that_is_gone_ends_the_route(self) -> None:
        self.world.store.drop_machine(ALICE)
        self.assertIsNone(self.route.backend)
        self.assertEqual(self.route.phase, "resting")

    def test_another_router_that_starts_it_anew_ends_the_route(self) -> None:
        run(
            self.world.store.change(
                self.world.row(), state=MachineState.STARTING, lease_owner="router:2"
            )
        )
        self.assertIsNone(self.route.backend)

    def test_a_wake_that_was_not_heard_of_means_other_connections(self) -> None:
        before = self.route.backend
        run(self.world.store.change(self.world.row(), last_wake_at=datetime.now(UTC)))
        assert before is not None
        self.assertTrue(before.closed)

    def test_a_newer_row_is_taken_over(self) -> None:
        run(self.world.store.change(self.world.row(), wake_cause="alarm"))
        self.assertEqual(self.route.row, self.world.row())

    def test_an_older_row_that_comes_late_is_not(self) -> None:
        slow: Deferred[None] = Deferred()
        stale = self.world.row()
        self.world.directory.step = lambda name, when: slow if name == "machine" else None
        late = run(self.world.waker.heed.refresh(self.route))
        self.world.directory.step = None
        run(self.world.store.change(stale, wake_cause="alarm"))
        newer = self.route.row
        self.world.store._machines[ALICE] = stale  # what the slow query saw
        slow.callback(None)
        self.assertEqual(late, [None])
        self.assertEqual(self.route.row, newer)

    def test_the_directorys_return_makes_everything_be_read_again(self) -> None:
        self.world.store.lose()
        self.world.store._lost_at = None
        self.world.store._machines.clear()  # and nobody was told
        self.world.store.recover()
        self.assertIsNone(self.route.backend)

    def test_a_change_that_cannot_be_read_now_is_read_later(self) -> None:
        self.world.store.lose()
        self.world.store._users[ALICE] = User(ALICE, "", UserState.BLOCKED)
        self.world.waker.changed(ALICE)
        self.world.let_pass(1.5)
        self.assertIsNotNone(self.route.backend)
        self.world.store._lost_at = None  # and nobody tells
        self.world.let_pass(LOOK_INTERVAL)
        self.assertIsNone(self.route.backend)

    def test_many_changes_at_once_are_read_together(self) -> None:
        self.world.directory.step = lambda name, when: deferLater(
            self.world.clock, 0.01, lambda: None
        )
        before = self.world.store.calls
        for _ in range(100):
            self.world.waker.changed(ALICE)
        self.world.let_pass(1.0)
        self.assertEqual(self.world.store.calls - before, 4, "two for the first, two for the rest")

    def test_a_rest_that_was_broken_off_is_taken_back(self) -> None:
        self.route.machine.rest("idle")
        self.world.store.lose()
        self.world.let_pass(0.5)
        self.world.store.recover()
        self.world.let_pass(1.5)
        self.assertEqual(self.world.row().state, MachineState.RUNNING)
        self.assertIsNone(self.world.row().lease_owner)
        self.assertIsNotNone(self.route.backend)


class DeathTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.route = self.world.awake()

    def test_a_death_is_written_down_and_the_next_request_starts_it(self) -> None:
        self.world.fleet_twin.die(ALICE)
        self.assertIsNone(self.route.backend)
        self.assertEqual(self.world.row().state, MachineState.STOPPED)
        self.assertEqual(self.world.events()[-1], ("died", "machine"))
        self.world.awake()
        self.assertEqual(self.world.fleet_twin.machines[ALICE].boots, 2)

    def test_the_death_of_an_earlier_boot_says_nothing_of_this_one(self) -> None:
        slow: Deferred[None] = Deferred()
        self.world.directory.step = lambda name, when: slow if name == "machine" else None
        self.world.fleet_twin.die(ALICE)  # noted once the query comes back
        self.world.directory.step = None
        self.world.awake()
        slow.callback(None)
        self.assertEqual(self.world.row().state, MachineState.RUNNING)

    def test_a_death_while_the_directory_is_down_is_found_out_by_the_next_request(self) -> None:
        self.world.store.lose()
        self.world.fleet_twin.die(ALICE)
        self.assertEqual(outcome(self.world.want())[0].reason, "directory")
        self.world.store.recover()
        self.world.awake()
        self.assertEqual(self.world.fleet_twin.machines[ALICE].boots, 2)

    def test_a_refused_connection_is_noted_once(self) -> None:
        backend = self.route.backend
        assert backend is not None
        self.world.waker.lost(self.route, backend)
        self.assertIsNone(self.route.backend)
        self.world.awake()
        self.world.waker.lost(self.route, backend)  # another request, on the old connections
        self.assertIsNotNone(self.route.backend)


class AdoptionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.first = World()
        self.first.awake()
        self.world = World(owner="router:2", within=self.first)

    def test_a_running_machine_is_reached_without_a_start(self) -> None:
        self.world.provider_twin.calls.clear()
        run(self.world.waker.adopt(ALICE))
        self.world.turn()
        self.assertIsNotNone(self.world.route().backend)
        self.assertEqual(self.world.provider_twin.calls, [])

    def test_one_that_does_not_answer_is_left_alone(self) -> None:
        self.world.place().deaf = True
        run(self.world.waker.adopt(ALICE))
        self.world.turn()
        self.assertEqual(self.world.route().phase, "resting")

    def test_a_wake_that_comes_meanwhile_keeps_its_own_connections(self) -> None:
        run(self.world.waker.adopt(ALICE))  # its probe is under way
        self.world.want()
        self.world.turn()
        installed = self.world.route().backend
        assert installed is not None
        self.assertFalse(installed.closed)
        self.assertEqual(self.world.route().phase, "awake")

    def test_a_sleeping_machine_is_not_woken(self) -> None:
        self.first.asleep()
        run(self.world.waker.adopt(ALICE))
        self.world.turn()
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)
