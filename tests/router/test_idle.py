"""Idle machines are found and put to sleep; the directory hears who was active."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import DirectoryUnavailable
from matrix.model import MachineState, User
from matrix.router.idle import Idle, Periodic
from tests.router.streams import STREAM, open_websocket, say
from tests.router.world import ALICE, BOB, World, run


class SweepTests(SynchronousTestCase):
    """The timeout is ten seconds."""

    def setUp(self) -> None:
        self.world = World()
        self.world.awake()

    def sweep_for(self, seconds: float) -> None:
        """Time passes, and each second somebody looks."""
        for _ in range(round(seconds)):
            self.world.let_pass(1.0, step=0.25)
            self.assertEqual(run(self.world.idle.sweep()), [None])

    def test_it_sleeps_once_it_was_unused_for_the_timeout(self) -> None:
        self.sweep_for(9)
        self.assertEqual(self.world.real(), MachineState.RUNNING)
        self.sweep_for(3)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)
        self.assertEqual(self.world.events()[-1], ("suspend", "idle"))

    def test_each_request_begins_the_time_anew(self) -> None:
        for _ in range(5):
            self.sweep_for(8)
            self.world.ask()
        self.assertEqual(self.world.real(), MachineState.RUNNING)

    def test_a_long_request_is_use_all_the_time_and_at_its_end(self) -> None:
        self.world.place().mute = True
        client = self.world.ask("/slow")
        self.sweep_for(40)
        self.world.place().say(self.world.place().open[-1], self.world.place().answer)
        self.assertEqual(client.status, 200)
        self.sweep_for(8)
        self.assertEqual(self.world.real(), MachineState.RUNNING)
        self.sweep_for(4)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_a_silent_stream_is_no_use(self) -> None:
        self.world.place().answer = STREAM
        self.world.ask("/events")
        self.sweep_for(12)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_comments_on_a_stream_are_no_use_and_events_are(self) -> None:
        self.world.place().answer = STREAM
        self.world.ask("/events")
        self.world.turn()
        stream = self.world.place().open[-1]
        for _ in range(3):
            self.sweep_for(6)
            self.world.place().say(stream, b"9\r\ndata: 2\n\n\r\n")
        self.assertEqual(self.world.real(), MachineState.RUNNING)
        for _ in range(2):
            self.sweep_for(6)
            self.world.place().say(stream, b"8\r\n: beat\n\n\r\n")
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_pings_on_a_websocket_are_no_use_and_data_frames_are(self) -> None:
        client = open_websocket(self.world)
        for _ in range(3):
            self.sweep_for(6)
            say(client)
        self.assertEqual(self.world.real(), MachineState.RUNNING)
        for _ in range(2):
            self.sweep_for(6)
            client.connection.dataReceived(b"\x89\x80aaaa")
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_prefetches_and_our_own_paths_are_no_use(self) -> None:
        for _ in range(4):
            self.sweep_for(3)
            self.world.ask("/guess", Sec_Purpose="prefetch")
            self.world.ask("/-/healthz")
            self.world.turn()
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_each_machine_by_itself(self) -> None:
        self.sweep_for(6)
        self.world.awake(BOB)
        self.sweep_for(6)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)
        self.assertEqual(self.world.real(BOB), MachineState.RUNNING)

    def test_a_user_may_have_a_time_of_their_own(self) -> None:
        self.world.put_user(User(ALICE, "alice@example.org", idle_timeout=20.0))
        self.sweep_for(18)
        self.assertEqual(self.world.real(), MachineState.RUNNING)
        self.sweep_for(4)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_and_has_it_from_the_wake_on(self) -> None:
        self.world.put_user(User(BOB, "bob@example.org", idle_timeout=3.0))
        self.world.awake(BOB)
        self.sweep_for(5)
        self.assertEqual(self.world.real(BOB), MachineState.SUSPENDED)
        self.assertEqual(self.world.real(), MachineState.RUNNING)

    def test_and_from_the_adoption_on(self) -> None:
        self.world.store._users[ALICE] = User(ALICE, "", idle_timeout=30.0)
        other = World(owner="router:2", within=self.world)
        run(other.waker.adopt(ALICE))
        other.turn()
        self.assertEqual(other.route().idle_timeout, 30.0)

    def test_after_an_outage_others_are_first_given_time_to_tell_of_use(self) -> None:
        """Two intervals of 2.5 s and a little more, though the time for sleep is long past."""
        self.world.store.watch(self.world.idle.heard)
        self.world.store.lose()
        self.sweep_for(20)
        self.assertEqual(self.world.real(), MachineState.RUNNING)
        self.world.store.recover()
        self.sweep_for(5)
        self.assertEqual(self.world.real(), MachineState.RUNNING)
        self.sweep_for(3)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_it_looks_often_enough(self) -> None:
        def interval(timeout: float) -> float:
            return Idle(self.world.fleet, self.world.wheel, self.world.routes, timeout).interval

        self.assertEqual(interval(900), 5.0)
        self.assertEqual(interval(4), 1.0)


class TouchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.awake()

    def touch(self) -> list[Any]:
        return run(self.world.idle.touch())

    def test_the_directory_hears_when_machines_were_used(self) -> None:
        self.world.let_pass(20.0, step=0.25)
        self.assertEqual(self.touch(), [None])
        at = self.world.row().last_active_at
        assert at is not None
        ago = self.world.clock.seconds() - at.timestamp()
        self.assertApproximates(ago, 20.0, 2.0)

    def test_it_is_told_of_news_only(self) -> None:
        self.touch()
        before = self.world.store.calls
        self.touch()
        self.assertEqual(self.world.store.calls, before)
        self.world.let_pass(1.0)
        self.world.ask()
        self.touch()
        self.assertEqual(self.world.store.calls, before + 1)

    def test_it_is_no_change_of_the_row(self) -> None:
        before = self.world.row().generation
        self.touch()
        self.assertEqual(self.world.row().generation, before)

    def test_what_could_not_be_told_is_told_later(self) -> None:
        self.world.store.lose()
        self.assertEqual(self.touch(), [None])
        self.world.store.recover()
        self.touch()
        self.assertIsNotNone(self.world.row().last_active_at)

    def test_what_sleeps_is_not_told_of(self) -> None:
        self.world.asleep()
        before = self.world.store.calls
        self.touch()
        self.assertEqual(self.world.store.calls, before)
        self.assertEqual(self.world.row(ALICE).state, MachineState.SUSPENDED)


class PeriodicTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.done: list[float] = []
        self.error: Exception | None = None
        self.periodic = Periodic(self.clock, 5.0, self.work)
        self.periodic.start()

    async def work(self) -> None:
        self.done.append(self.clock.seconds())
        if self.error is not None:
            raise self.error

    def test_it_works_after_each_interval(self) -> None:
        self.clock.pump([1.0] * 16)
        self.assertEqual(self.done, [5.0, 10.0, 15.0])

    def test_it_may_begin_at_once(self) -> None:
        at_once = Periodic(self.clock, 8.0, self.work)
        at_once.start(now=True)
        self.clock.pump([1.0] * 9)
        self.assertEqual(self.done, [0.0, 5.0, 8.0])

    def test_a_failure_is_logged_and_does_not_stop_it(self) -> None:
        self.error = ArithmeticError("a bug")
        self.clock.pump([1.0] * 11)
        self.assertEqual((len(self.done), self.periodic.failures), (2, 2))
        self.assertEqual(len(self.flushLoggedErrors(ArithmeticError)), 2)

    def test_an_outage_of_the_directory_is_no_failure_of_ours(self) -> None:
        self.error = DirectoryUnavailable("gone")
        self.clock.pump([1.0] * 11)
        self.assertEqual((len(self.done), self.periodic.failures), (2, 2))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_it_can_be_stopped_twice(self) -> None:
        self.periodic.stop()
        self.periodic.stop()
        self.clock.pump([1.0] * 11)
        self.assertEqual(self.done, [])
