"""Each pair of what the row says and what the provider sees."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import DirectoryUnavailable
from matrix.machines import ProviderError
from matrix.model import MachineState, UserId
from matrix.router.owners import this_router
from matrix.router.reconcile import PAGE, UNANSWERING, Reconciler
from tests.router.world import ALICE, World, run

S = MachineState

CORRECTED = {
    (S.RUNNING, S.SUSPENDED): S.SUSPENDED,
    (S.RUNNING, S.STOPPED): S.STOPPED,
    (S.RUNNING, None): S.LOST,
    (S.STARTING, S.RUNNING): S.RUNNING,
    (S.STARTING, S.SUSPENDED): S.SUSPENDED,
    (S.STARTING, S.STOPPED): S.FAILED,
    (S.STARTING, None): S.LOST,
    (S.DRAINING, S.RUNNING): S.RUNNING,
    (S.DRAINING, S.SUSPENDED): S.SUSPENDED,
    (S.DRAINING, S.STOPPED): S.STOPPED,
    (S.DRAINING, None): S.LOST,
    (S.SUSPENDING, S.RUNNING): S.RUNNING,
    (S.SUSPENDING, S.SUSPENDED): S.SUSPENDED,
    (S.SUSPENDING, S.STOPPED): S.STOPPED,
    (S.SUSPENDING, None): S.LOST,
}
"""Said and seen, and what the row says afterwards. Any other pair leaves the row as it is: no
request is routed by it, and the next wake asks the provider anyway."""

SEEN = (S.RUNNING, S.SUSPENDED, S.STOPPED, None)
PAST = datetime.now(UTC) - timedelta(seconds=1)
FUTURE = datetime.now(UTC) + timedelta(hours=1)


def reconciler_of(world: World) -> Reconciler:
    """One of this router's."""
    return Reconciler(world.fleet, world.waker, world.routes, world.registry, idle=10.0)


class PairTests(SynchronousTestCase):
    def after(
        self, said: S, seen: S | None, expires: datetime | None = PAST, owner: str = "router:0"
    ) -> World:
        world = World()
        world.awake()
        world.route().machine.lost()
        machines = world.fleet_twin.machines
        if seen is None:
            del machines[ALICE]
        else:
            machines[ALICE].state = seen
        lease = {"lease_owner": owner if expires else None, "lease_expires_at": expires}
        run(world.store.change(world.row(), state=said, **lease))
        reconciler = reconciler_of(world)
        result = run(reconciler.run())
        world.turn()
        self.assertEqual(result, [None])
        return world

    def test_the_row_is_corrected_or_left_alone(self) -> None:
        for said in MachineState:
            for seen in SEEN:
                world = self.after(said, seen)
                expected = CORRECTED.get((said, seen), said)
                self.assertEqual(world.row().state, expected, f"{said} said, {seen} seen")

    def test_each_correction_is_an_event_and_ends_the_lease(self) -> None:
        for said, seen in CORRECTED:
            world = self.after(said, seen)
            self.assertEqual(world.events()[-1], ("reconciled", "router"), f"{said} {seen}")
            self.assertIsNone(world.row().lease_owner)

    def test_what_is_right_is_no_event(self) -> None:
        world = self.after(S.RUNNING, S.RUNNING)
        self.assertNotIn(("reconciled", "router"), world.events())

    def test_whatever_runs_is_adopted_and_nothing_is_started(self) -> None:
        for said in (S.RUNNING, S.STARTING, S.DRAINING, S.SUSPENDING):
            world = self.after(said, S.RUNNING)
            self.assertIsNotNone(world.route().backend, said)
            self.assertEqual(world.asked("start"), 1, "that of the beginning")

    def test_somebody_at_work_is_not_disturbed(self) -> None:
        for said in (S.STARTING, S.DRAINING, S.SUSPENDING):
            for seen in SEEN:
                world = self.after(said, seen, FUTURE)
                self.assertEqual(world.row().state, said)
                self.assertEqual(world.row().lease_owner, "router:0")

    def test_nor_are_we_ourselves(self) -> None:
        world = self.after(S.SUSPENDING, S.SUSPENDED, FUTURE, "router:1")
        self.assertEqual(world.row().state, S.SUSPENDING)

    def test_the_work_of_a_router_that_was_killed_is_nobodys(self) -> None:
        killed = this_router().replace(f":{os.getpid()}:", ":4194305:")  # over PID_MAX_LIMIT
        world = self.after(S.STARTING, S.RUNNING, FUTURE, killed)
        self.assertEqual(world.row().state, S.RUNNING)
        self.assertIsNotNone(world.route().backend)

    def test_a_transition_under_no_lease_is_nobodys(self) -> None:
        self.assertEqual(self.after(S.STARTING, S.RUNNING, None).row().state, S.RUNNING)

    def test_afterwards_a_request_is_served_from_every_pair(self) -> None:
        for said in set(MachineState) - {S.DESTROYING, S.DESTROYED}:
            for seen in SEEN:
                world = self.after(said, seen)
                client = world.ask()
                world.let_pass(0.3)
                if client.status == 503:  # found to be lost just now
                    self.assertIsNone(seen)
                    client = world.ask()
                    world.let_pass(0.3)
                self.assertEqual(client.status, 200, f"{said} said, {seen} seen")
                self.assertEqual(len(world.fleet_twin.machines), 1)


class PassTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.reconciler = reconciler_of(self.world)

    def test_another_providers_machines_are_not_ours(self) -> None:
        self.world.awake()
        row = self.world.row()
        self.world.store._machines[ALICE] = type(row)(
            **{name: getattr(row, name) for name in row.__slots__} | {"provider": "fly"}
        )
        run(self.reconciler.run())
        self.assertEqual(self.world.asked("inspect"), 0)

    def test_one_that_cannot_be_inspected_does_not_end_the_pass(self) -> None:
        users = [UserId(f"0a1b2c3d-0000-4000-8000-{number:012d}") for number in range(3)]
        for user in users:
            self.world.awake(user)
            self.world.fleet_twin.machines[user].state = S.STOPPED
        self.world.provider_twin.fail("inspect", ProviderError("busy"))
        self.assertEqual(run(self.reconciler.run()), [None])
        self.assertEqual(
            [self.world.row(user).state for user in users], [S.RUNNING, S.STOPPED, S.STOPPED]
        )

    def test_a_row_that_changes_under_it_is_left_to_who_changed_it(self) -> None:
        self.world.awake()
        self.world.fleet_twin.machines[ALICE].state = S.STOPPED

        def meddle(name: str, when: str) -> None:
            run(self.world.store.change(self.world.row(), wake_cause="other"))

        self.world.provider.step = meddle  # type: ignore[assignment]
        self.assertEqual(run(self.reconciler.run()), [None])
        self.assertEqual(self.world.row().state, S.RUNNING)

    def test_it_goes_through_all_pages(self) -> None:
        for number in range(PAGE + 3):
            user = UserId(f"0a1b2c3d-0000-4000-8000-{number:012d}")
            run(self.world.store.admit(user, ""))
            [row] = run(self.world.store.create_machine(user, "memory"))
            run(self.world.store.change(row, state=S.RUNNING, machine_id=f"m{number}"))
        run(self.reconciler.run())
        self.assertEqual(self.world.asked("inspect"), PAGE + 3)
        self.assertEqual(self.world.row(user).state, S.LOST)

    def test_an_outage_ends_the_pass(self) -> None:
        self.world.store.lose()
        self.assertIsInstance(run(self.reconciler.run())[0], DirectoryUnavailable)


class OverdueTests(SynchronousTestCase):
    """Of a provider that can be surveyed only those that should sleep are looked at."""

    def setUp(self) -> None:
        self.world = World()
        self.world.provider_twin.surveys = True
        self.reconciler = reconciler_of(self.world)

    def forsaken(self, ago: float = 100.0) -> None:
        """Alice's machine runs, and the router that knew of it is no more."""
        self.world.awake()
        self.world.route().machine.lost()
        self.world.routes._routes.clear()
        used = datetime.fromtimestamp(self.world.clock.seconds() - ago, UTC)
        run(self.world.store.change(self.world.row(), last_active_at=used))

    def reconcile(self) -> None:
        reconciling = run(self.reconciler.run())
        self.world.let_pass(3.0)
        self.assertEqual(reconciling, [None])

    def test_one_that_nobody_put_to_sleep_in_time_is(self) -> None:
        self.forsaken()
        self.reconcile()
        self.assertIsNotNone(self.world.route().backend)
        run(self.world.idle.sweep())
        self.world.let_pass(1.0)
        self.assertEqual(self.world.row().state, S.SUSPENDED)
        self.assertEqual(self.world.row().suspend_cause, "idle")

    def test_others_are_not_even_looked_at(self) -> None:
        self.forsaken(ago=30.0)
        self.reconcile()
        self.assertEqual(self.world.asked("inspect"), 0)
        self.assertEqual(len(self.world.routes), 0)

    def test_nor_is_one_that_this_router_watches(self) -> None:
        self.forsaken()
        self.reconcile()
        asked = self.world.asked("inspect")
        self.reconcile()
        self.assertEqual(self.world.asked("inspect"), asked)

    def test_one_that_answers_nobody_is_put_to_sleep_all_the_same(self) -> None:
        self.forsaken()
        self.world.place().deaf = True
        self.reconcile()
        row = self.world.row()
        self.assertEqual((row.state, row.suspend_cause), (S.SUSPENDED, UNANSWERING))
        self.assertEqual(self.world.real(), S.SUSPENDED)

    def test_unless_it_said_that_it_is_busy(self) -> None:
        self.forsaken()
        self.world.place().deaf = True
        run(self.world.store.busy.hold(ALICE, "indexing", 3600.0, 3600.0))
        self.reconcile()
        self.assertEqual(self.world.row().state, S.RUNNING)

    def test_one_that_ended_is_stopped(self) -> None:
        self.forsaken()
        self.world.fleet_twin.machines[ALICE].state = S.STOPPED
        self.reconcile()
        self.assertEqual(self.world.row().state, S.STOPPED)

    def test_what_is_never_put_to_sleep_is_left_alone(self) -> None:
        self.forsaken()
        self.world.provider_twin.sleeps = False
        self.reconcile()
        self.assertEqual(self.world.row().state, S.RUNNING)
        self.assertEqual(self.world.asked("inspect"), 0)
