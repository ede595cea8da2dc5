"""What holds a machine's sleep off, puts it off, or takes it back: on all routers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import Conflict
from matrix.http import Backend
from matrix.model import Machine, MachineState, User, UserId, UserState
from matrix.router.idle import Idle
from matrix.router.resting import put_away
from tests.router.streams import open_websocket, say
from tests.router.world import ALICE, BOB, World, outcome, run

SLOW = 15.0
"""Seconds that a provider takes to suspend: longer than anybody waits."""


class Saver:
    """Saves for as long as a test wants."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.saving: Deferred[None] = Deferred()
        self.held: set[UserId] = set()
        self.seen: list[tuple[MachineState, str | None, str]] = []
        self.ended = ""

    def holds(self, user_id: UserId) -> bool:
        return user_id in self.held

    async def before_rest(self, machine: Machine, backend: Backend, cause: str) -> None:
        row = self._world.row(machine.user_id)
        self.seen.append((row.state, row.lease_owner, cause))
        try:
            await self.saving
        except CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "saved"


def sweep_for(world: World, seconds: float) -> None:
    """Time passes, and each second somebody looks."""
    for _ in range(round(seconds)):
        world.let_pass(1.0, step=0.25)
        run(world.idle.sweep())


class AcrossRoutersTests(SynchronousTestCase):
    """While one router waits for a machine to sleep, it is wanted at another."""

    def setUp(self) -> None:
        self.one = World()
        self.two = World(owner="router:2", within=self.one)
        self.one.awake()
        self.one.provider_twin.delays["suspending"] = SLOW
        self.one.route().machine.rest("idle")
        self.one.let_pass(0.5, step=0.02)
        self.assertEqual(self.one.row().state, MachineState.SUSPENDING)

    def test_it_does_not_wait_for_the_sleep(self) -> None:
        client = self.two.ask()
        self.two.let_pass(0.3, step=0.02)
        self.assertEqual(client.status, 200)
        self.assertEqual(self.one.row().state, MachineState.RUNNING)
        self.assertEqual(self.one.route().phase, "resting", "it waits for nothing any more")

    def test_and_nothing_puts_it_to_sleep_later(self) -> None:
        self.two.ask()
        self.two.let_pass(2 * SLOW)
        self.assertEqual(self.one.real(), MachineState.RUNNING)
        self.assertEqual(self.one.asked("suspend"), 1)
        for world in (self.one, self.two):
            client = world.ask()
            world.let_pass(0.2)
            self.assertEqual(client.status, 200)

    def test_without_anybody_it_sleeps(self) -> None:
        self.one.let_pass(SLOW)
        row = self.one.row()
        self.assertEqual((row.state, row.suspend_cause), (MachineState.SUSPENDED, "idle"))
        self.assertEqual(self.one.events()[-1], ("suspend", "idle"))
        self.assertEqual(self.one.route().phase, "resting")

    def test_what_others_noted_first_is_an_event_all_the_same(self) -> None:
        run(self.two.store.change(self.one.row(), state=MachineState.SUSPENDED))
        self.one.let_pass(SLOW)
        self.assertEqual(self.one.events()[-1], ("suspend", "idle"))

    def test_an_outage_of_the_directory_changes_nothing(self) -> None:
        self.one.store.lose()
        self.one.let_pass(5.0)
        self.one.store.recover()
        self.one.let_pass(SLOW)
        self.assertEqual(self.one.row().state, MachineState.SUSPENDED)

    def test_both_want_it_at_once(self) -> None:
        clients = [world.ask() for world in (self.one, self.two)]
        self.one.let_pass(0.5, step=0.02)
        self.assertEqual([client.status for client in clients], [200, 200])
        self.assertEqual(self.one.real(), MachineState.RUNNING)


class BothAwakeTests(SynchronousTestCase):
    """Both routers have reached the machine that one of them puts to sleep."""

    def setUp(self) -> None:
        self.one = World()
        self.one.awake()
        self.two = World(owner="router:2", within=self.one)
        self.two.awake()
        for world in (self.one, self.two):
            run(world.idle.touch())

    def test_one_while_it_falls_asleep_at_the_other(self) -> None:
        for world in (self.one, self.two):
            world.provider_twin.delays["suspending"] = SLOW
        self.one.route().machine.rest("idle")
        self.one.let_pass(0.6, step=0.02)
        self.assertEqual(self.two.route().phase, "resting", "it gave way")
        client = self.two.ask()
        self.two.let_pass(0.3, step=0.02)
        self.assertEqual(client.status, 200)
        self.one.let_pass(2 * SLOW)
        self.assertEqual(self.one.real(), MachineState.RUNNING)
        self.assertEqual(self.one.asked("suspend") + self.two.asked("suspend"), 1)

    def test_one_while_the_other_has_it_saved(self) -> None:
        self.one.fleet.saver = saver = Saver(self.one)
        self.one.route().machine.rest("idle")
        self.one.let_pass(30.0, step=0.1)
        self.assertEqual(self.one.row().state, MachineState.DRAINING)
        before = self.one.store.calls
        self.one.let_pass(5.0, step=0.1)
        self.assertLess(self.one.store.calls - before, 5, "little is asked of the directory")
        client = self.two.ask()
        self.two.let_pass(0.5, step=0.1)
        self.assertEqual(client.status, 200)
        self.assertNotIn("matrix-wake", client.headers)
        self.assertEqual(saver.ended, "cancelled")
        self.one.let_pass(1.0)
        for world in (self.one, self.two):
            self.assertEqual(world.route().phase, "awake")

    def test_data_on_a_stream_of_the_others_while_it_is_saved(self) -> None:
        self.one.fleet.saver = saver = Saver(self.one)
        client = open_websocket(self.two)
        self.two.let_pass(12.0, step=0.25)
        run(self.two.idle.touch())
        self.one.route().note_use(self.one.row().last_active_at, self.one.wheel.now)
        self.one.route().machine.rest("idle")
        self.one.let_pass(30.0, step=0.1)
        self.assertEqual(self.one.row().state, MachineState.DRAINING)
        say(client)
        self.two.let_pass(1.0, step=0.1)
        self.assertEqual(self.one.row().state, MachineState.RUNNING)
        self.assertEqual(saver.ended, "cancelled")


class SavingTests(SynchronousTestCase):
    """A snapshot is taken before the sleep, and gives way to whoever comes."""

    def setUp(self) -> None:
        self.world = World()
        self.two = World(owner="router:2", within=self.world)
        self.route = self.world.awake()
        self.saver = Saver(self.world)
        self.world.fleet.saver = self.saver
        self.route.machine.rest("idle")
        self.world.let_pass(0.5)

    def stays_awake(self) -> None:
        self.assertEqual(self.saver.ended, "cancelled")
        self.assertEqual(self.world.row().state, MachineState.RUNNING)
        self.assertEqual(self.world.asked("suspend"), 0)
        self.assertEqual(self.route.phase, "awake")

    def test_it_is_taken_while_others_can_object(self) -> None:
        self.assertEqual(self.saver.seen, [(MachineState.DRAINING, "router:1", "idle")])
        self.assertEqual(self.world.asked("suspend"), 0)
        self.saver.saving.callback(None)
        self.world.let_pass(0.5)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_the_lease_lasts_as_long_as_it_takes(self) -> None:
        first = self.world.row().lease_expires_at
        generation = self.world.row().generation
        self.world.let_pass(300.0, step=0.5)
        row = self.world.row()
        assert first is not None
        assert row.lease_expires_at is not None
        self.assertGreater(row.lease_expires_at, first)
        # Renewed every twenty seconds, not at each look.
        self.assertLessEqual(row.generation - generation, 16)
        self.assertEqual(row.state, MachineState.DRAINING)
        self.saver.saving.callback(None)
        self.world.let_pass(0.5)
        self.assertEqual(self.world.row().state, MachineState.SUSPENDED)

    def test_a_request_breaks_it_off(self) -> None:
        client = self.world.ask()
        self.world.turn()
        self.assertEqual(client.status, 200)
        self.assertNotIn("matrix-wake", client.headers)
        self.stays_awake()

    def test_use_on_an_open_stream_does_too(self) -> None:
        assert self.route.cordoned is not None
        self.route.cordoned.used_at += 1
        self.world.let_pass(0.2)
        self.stays_awake()

    def test_a_request_at_another_router_does_too(self) -> None:
        client = self.two.ask()
        self.two.let_pass(0.3, step=0.02)
        self.assertEqual(client.status, 200)
        self.assertNotIn("matrix-wake", client.headers)
        self.stays_awake()

    def test_an_outage_of_the_directory_does_too(self) -> None:
        self.world.let_pass(19.0, step=0.5)
        self.world.store.lose()
        self.world.let_pass(5.0, step=0.5)
        self.assertEqual(self.saver.ended, "cancelled")
        self.assertEqual(self.world.asked("suspend"), 0)
        self.assertEqual(self.route.phase, "awake")

    def test_what_nobody_foresaw_in_it_keeps_no_machine_awake(self) -> None:
        self.saver.saving.errback(ArithmeticError("a bug"))
        self.world.let_pass(0.5)
        self.assertEqual(len(self.flushLoggedErrors(ArithmeticError)), 1)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_a_blocked_users_machine_is_saved_too(self) -> None:
        self.saver.saving.callback(None)
        self.world.let_pass(0.5)
        self.world.awake()
        self.world.route().machine.lost()
        self.world.let_pass(0.1)
        self.saver.seen.clear()
        self.assertEqual(run(put_away(self.world.fleet, self.world.row(), "blocked")), [None])
        self.assertEqual(self.saver.seen, [(MachineState.DRAINING, "router:1", "blocked")])
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)


class HoldingOffTests(SynchronousTestCase):
    """The timeout is ten seconds; a machine that is busy, or saved just now, outlasts it."""

    def setUp(self) -> None:
        self.world = World()
        self.world.awake()

    def hold(self, seconds: float, longest: float = 3600.0) -> None:
        run(self.world.store.busy.hold(ALICE, "indexing", seconds, longest))

    def test_a_lease_holds_it_off_until_it_ends(self) -> None:
        self.hold(60.0)
        sweep_for(self.world, 55)
        self.assertEqual(self.world.real(), MachineState.RUNNING)
        self.assertEqual(self.world.asked("suspend"), 0)
        sweep_for(self.world, 10)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_ended_early_it_sleeps(self) -> None:
        self.hold(600.0)
        sweep_for(self.world, 20)
        run(self.world.store.busy.end(ALICE))
        sweep_for(self.world, 5)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_no_longer_than_it_may_without_use(self) -> None:
        run(self.world.idle.touch())
        # The wake is noted by the host's clock, which is not the test's.
        row = replace(self.world.row(), last_wake_at=self.world.row().last_active_at)
        self.world.store._machines[ALICE] = self.world.route().row = row
        for _ in range(12):
            self.hold(600.0)
            self.world.let_pass(299.0, step=1.0)
            run(self.world.idle.sweep())
            self.world.let_pass(1.0)
        self.assertEqual(self.world.real(), MachineState.RUNNING)
        self.hold(600.0)
        sweep_for(self.world, 20)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_one_that_begins_while_it_is_put_to_sleep(self) -> None:
        """At every moment until the machine is beyond recall."""
        kept = 0
        for number in range(1, 30):
            world, passed = World(), 0
            world.awake()

            def step(name: str, when: str, world: World = world, at: int = number) -> None:
                nonlocal passed
                passed += 1
                if passed == at and world.row().state in (
                    MachineState.RUNNING,
                    MachineState.DRAINING,
                ):
                    run(world.store.busy.hold(ALICE, "indexing", 600.0, 3600.0))

            world.let_pass(11.0, step=0.25)
            world.directory.step = step  # type: ignore[assignment]
            run(world.idle.sweep())
            world.let_pass(1.0)
            if run(world.store.busy.of([ALICE])) != [{}]:
                kept += 1
                self.assertEqual(world.real(), MachineState.RUNNING, f"at step {number}")
                self.assertEqual(world.row().state, MachineState.RUNNING)
        self.assertGreaterEqual(kept, 5)

    def test_an_operator_may_all_the_same(self) -> None:
        self.hold(600.0)
        self.world.let_pass(0.2)
        self.assertEqual(self.suspend(), [None])
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def suspend(self) -> list[Any]:
        done = run(self.world.waker.suspend(ALICE, "operator"))
        self.world.let_pass(1.0)
        return done

    def test_a_snapshot_under_way_holds_it_off(self) -> None:
        saver = Saver(self.world)
        saver.held.add(ALICE)
        saver.saving.callback(None)
        self.world.fleet.saver = saver
        sweep_for(self.world, 20)
        self.assertEqual((saver.seen, self.world.asked("suspend")), ([], 0))
        saver.held.clear()
        sweep_for(self.world, 4)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)


class CrowdTests(SynchronousTestCase):
    """Ten machines that are unused at once."""

    def test_they_sleep_one_after_the_other_the_longest_unused_first(self) -> None:
        world = World()
        users = [UserId(f"0a1b2c3d-0000-4000-8000-0000000001{number:02}") for number in range(10)]
        for user_id in reversed(users):
            world.want(user_id)
            world.let_pass(0.25, step=0.25)
        world.let_pass(0.25)
        idle = Idle(world.fleet, world.wheel, world.routes, timeout=10.0, rate=2.0)
        world.let_pass(12.0, step=0.25)
        sweeping = run(idle.sweep())
        world.let_pass(2.7, step=0.1)
        asleep = [user for user in users if world.real(user) is MachineState.SUSPENDED]
        self.assertEqual(asleep, users[-4:], "two in a second, each of which takes a moment")
        world.let_pass(5.0, step=0.1)
        self.assertEqual({world.real(user) for user in users}, {MachineState.SUSPENDED})
        self.assertEqual(sweeping, [None])

    def test_one_that_is_used_before_its_turn_stays_awake(self) -> None:
        world = World()
        for user_id in (ALICE, BOB):
            world.awake(user_id)
        idle = Idle(world.fleet, world.wheel, world.routes, timeout=10.0, rate=1.0)
        world.let_pass(12.0, step=0.25)
        run(idle.sweep())
        world.ask(token="bob-token")
        world.let_pass(3.0, step=0.25)
        self.assertEqual(world.real(ALICE), MachineState.SUSPENDED)
        self.assertEqual(world.real(BOB), MachineState.RUNNING)


class NeverTests(SynchronousTestCase):
    """A template may say that machines are never put to sleep."""

    def setUp(self) -> None:
        self.world = World()
        self.world.awake()
        self.world.provider_twin.sleeps = False

    def test_no_want_of_use_does(self) -> None:
        sweep_for(self.world, 30)
        self.assertEqual(self.world.asked("suspend"), 0)
        self.assertEqual(self.world.row().state, MachineState.RUNNING)

    def test_an_operator_is_told_so(self) -> None:
        [error] = outcome(Deferred.fromCoroutine(self.world.waker.suspend(ALICE, "operator")))
        assert isinstance(error, Conflict)
        self.assertEqual(error.reason, "never-sleeps")
        self.assertEqual(self.world.row().state, MachineState.RUNNING)

    def test_who_may_not_come_in_is_kept_out_all_the_same(self) -> None:
        self.world.put_user(User(ALICE, "alice@example.org", UserState.BLOCKED))
        self.world.let_pass(0.5)
        self.assertEqual(self.world.row().state, MachineState.RUNNING)
        client = self.world.ask()
        self.world.turn()
        self.assertEqual(client.status, 403)
