"""Several routers on one machine: use at one counts at all, and what sleeps ends everywhere."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from matrix.machines import LifecycleEvent, ProviderError
from matrix.metrics import series
from matrix.model import MachineState, User, UserState
from matrix.router.yielding import SLACK
from tests.router.streams import STREAM, open_websocket, say
from tests.router.world import ALICE, HEARING, World, outcome, run

LONG = 20.0
"""Seconds: twice the idle timeout."""


class TwoRouters(SynchronousTestCase):
    """Both have reached alice's machine; the second one would put it to sleep."""

    def setUp(self) -> None:
        self.one = World()
        self.one.awake()
        self.two = World(owner="router:2", within=self.one)
        self.two.awake()
        self.told()
        self.one.provider_twin.calls.clear()

    def told(self) -> None:
        """The directory knows of all use."""
        for world in (self.one, self.two):
            run(world.idle.touch())

    def rest(self, cause: str = "idle", seconds: float = 0.6) -> None:
        """The second router has found that nobody uses the machine."""
        self.two.route().machine.rest(cause)
        self.one.let_pass(seconds, step=0.02)

    def awake_everywhere(self) -> None:
        self.assertEqual(self.one.real(), MachineState.RUNNING)
        row = self.one.row()
        self.assertEqual((row.state, row.lease_owner), (MachineState.RUNNING, None))
        for world in (self.one, self.two):
            self.assertIsNotNone(world.route().backend)
            self.assertEqual(world.route().phase, "awake")
        self.assertEqual(self.two.asked("suspend") + self.one.asked("suspend"), 0)

    def asleep_everywhere(self) -> None:
        self.assertEqual(self.one.real(), MachineState.SUSPENDED)
        self.assertEqual(self.one.row().state, MachineState.SUSPENDED)
        for world in (self.one, self.two):
            self.assertIsNone(world.route().backend)
            self.assertEqual(world.route().phase, "resting")

    def slow_request(self) -> Any:
        """One under way at the first router."""
        self.one.place().mute = True
        client = self.one.ask("/slow")
        self.upstream = next(one for one in reversed(self.one.place().open) if one.work)
        self.one.turn()
        return client

    def answer(self) -> None:
        self.one.place().mute = False
        self.one.place().say(self.upstream, self.one.place().answer)


class ConsultTests(TwoRouters):
    """The idle pass asks the directory before it puts a machine to sleep."""

    def pass_by(self, seconds: float, touching: bool = True) -> None:
        """Time passes; every second both look, and the first one is used."""
        for _ in range(round(seconds)):
            self.one.let_pass(1.0, step=0.25)
            self.one.ask()
            self.one.turn()
            for world in (self.one, self.two):
                run(world.idle.sweep())
                if touching:
                    run(world.idle.touch())

    def use(self, ago: float) -> None:
        """Some router has used the machine, and said so."""
        run(self.one.store.touch({ALICE: self.one.clock.seconds() - ago}))

    def test_use_at_one_keeps_it_awake_for_all(self) -> None:
        self.pass_by(LONG)
        self.awake_everywhere()
        self.assertEqual(self.one.registry.counter(series.SUSPENDS, "idle").value, 0)

    def test_even_before_it_was_written_down(self) -> None:
        self.pass_by(LONG, touching=False)
        self.one.let_pass(1.0)
        self.awake_everywhere()

    def test_who_objects_tells_of_the_use(self) -> None:
        """So that the next claim needs no objection: who would object may be busy then."""
        self.one.let_pass(4.0)
        self.one.ask()
        self.one.turn()
        used_at = self.one.route().used_at
        self.rest()
        self.awake_everywhere()
        self.assertAlmostEqual(self.one.row().last_active_at.timestamp(), used_at, 3)

    def test_nobodys_use_lets_it_sleep(self) -> None:
        for _ in range(14):
            self.one.let_pass(1.0, step=0.25)
            for world in (self.one, self.two):
                run(world.idle.sweep())
                run(world.idle.touch())
        self.one.let_pass(1.0)
        self.asleep_everywhere()
        self.assertEqual(self.one.events().count(("suspend", "idle")), 1)

    def test_it_is_asked_once_for_each_timeout(self) -> None:
        self.one.let_pass(11.0, step=0.25)
        self.use(ago=2.0)
        before = self.two.store.calls
        run(self.two.idle.sweep())
        asked = before + 2  # for the leases of all that are unused, and for this one's row
        self.assertEqual(self.two.store.calls, asked)
        self.one.let_pass(7.0, step=0.25)
        run(self.two.idle.sweep())
        self.assertEqual(self.two.store.calls, asked)
        self.one.let_pass(2.0, step=0.25)
        run(self.two.idle.sweep())
        self.assertGreater(self.two.store.calls, asked)

    def test_a_request_that_comes_while_it_is_asked_counts(self) -> None:
        self.one.let_pass(11.0, step=0.25)
        self.two.directory.step = lambda name, when: deferLater(self.two.clock, 0.1, lambda: None)
        sweeping = run(self.two.idle.sweep())
        self.two.ask()
        self.two.let_pass(1.0)
        self.assertEqual(sweeping, [None])
        self.awake_everywhere()

    def test_use_that_is_written_down_between_the_question_and_the_claim(self) -> None:
        self.one.let_pass(11.0, step=0.25)

        def step(name: str, when: str) -> None:
            if (name, when) == ("change", "before"):
                self.two.directory.step = None
                self.use(ago=1.0)

        self.two.directory.step = step  # type: ignore[assignment]
        run(self.two.idle.sweep())
        self.one.let_pass(0.5)
        self.awake_everywhere()

    def test_a_request_under_way_is_use_that_the_directory_hears_of(self) -> None:
        self.slow_request()
        self.one.let_pass(LONG, step=0.25)
        run(self.one.idle.touch())
        at = self.one.row().last_active_at
        assert at is not None
        self.assertLess(self.one.clock.seconds() - at.timestamp(), 1.0)
        self.answer()

    def test_notes_are_as_frequent_as_the_timeout_asks_for(self) -> None:
        self.assertEqual(self.one.idle.touch_interval, 2.5)


class ObjectionTests(TwoRouters):
    """A suspend that another router has begun is stopped while that can be."""

    def test_a_request_under_way_stops_it(self) -> None:
        client = self.slow_request()
        self.rest()
        self.awake_everywhere()
        self.answer()
        self.assertEqual(client.status, 200)

    def test_even_if_an_operator_wants_it(self) -> None:
        self.slow_request()
        self.rest("operator")
        self.awake_everywhere()
        self.answer()

    def test_use_that_the_other_could_not_know_of_stops_it(self) -> None:
        self.one.let_pass(5.0, step=0.25)
        self.one.ask()
        self.one.turn()
        self.rest()
        self.awake_everywhere()
        self.told()
        self.rest()
        self.asleep_everywhere()

    def test_but_not_what_an_operator_wants(self) -> None:
        self.one.ask()
        self.one.turn()
        self.rest("operator")
        self.asleep_everywhere()

    def test_the_row_keeps_what_it_last_slept_for(self) -> None:
        self.rest("operator")
        for world in (self.one, self.two):
            world.awake()
            world.provider_twin.calls.clear()
        self.slow_request()
        self.rest()
        self.awake_everywhere()
        self.assertEqual(self.one.row().suspend_cause, "operator")
        self.answer()

    def test_streams_of_the_other_are_not_ended_by_what_comes_to_nothing(self) -> None:
        client = open_websocket(self.two)
        self.slow_request()
        self.rest()
        self.awake_everywhere()
        self.assertNotIn(b"suspended", client.body)
        self.answer()

    def test_requests_on_connections_of_before_stop_it_too(self) -> None:
        self.slow_request()
        self.one.route().machine.lost()
        self.rest()
        self.assertEqual(self.one.real(), MachineState.RUNNING)
        self.assertEqual(self.one.row().state, MachineState.RUNNING)
        self.answer()
        self.rest("operator")
        self.asleep_everywhere()

    def test_nobody_objects_to_a_block(self) -> None:
        self.slow_request()
        self.one.put_user(User(ALICE, "alice@example.org", UserState.BLOCKED))
        self.one.let_pass(0.5)
        self.assertEqual(self.one.real(), MachineState.SUSPENDED)
        self.assertEqual(self.one.row().suspend_cause, "blocked")
        self.assertEqual(self.flushLoggedErrors(), [])
        self.answer()


class WayTests(TwoRouters):
    """What nobody objects to happens at all routers."""

    def test_it_sleeps_for_all(self) -> None:
        self.rest()
        self.asleep_everywhere()
        self.assertEqual(self.one.registry.counter(series.SUSPENDS, "idle").value, 0)
        self.assertEqual(self.two.registry.counter(series.SUSPENDS, "idle").value, 1)

    def test_streams_end_properly(self) -> None:
        self.one.place().answer = STREAM
        events = self.one.ask("/events")
        self.one.turn()
        socket = open_websocket(self.one)
        at_freezing: list[bytes] = []
        self.two.provider.step = lambda name, when: at_freezing.append(events.body)  # type: ignore[func-returns-value]
        self.rest("operator")
        self.asleep_everywhere()
        self.assertTrue(at_freezing[0].endswith(b"0\r\n\r\n"), "a proper end, before the freeze")
        self.assertIn(b"\x88\x0b" + (1012).to_bytes(2, "big") + b"suspended", socket.body)

    def test_so_do_streams_on_connections_of_before(self) -> None:
        socket = open_websocket(self.one)
        self.told()
        self.one.route().machine.lost()
        self.rest()
        self.assertEqual(self.one.real(), MachineState.SUSPENDED)
        self.assertIn(b"\x88\x0b" + (1012).to_bytes(2, "big") + b"suspended", socket.body)

    def test_and_a_word_on_them_keeps_it_awake(self) -> None:
        socket = open_websocket(self.one)
        self.told()
        self.one.route().machine.lost()
        self.one.let_pass(2 * SLACK, step=0.25)
        self.rest(seconds=HEARING / 2)
        self.assertEqual(self.one.row().state, MachineState.DRAINING)
        say(socket)
        self.one.let_pass(0.5, step=0.02)
        self.assertEqual(self.one.real(), MachineState.RUNNING)
        self.assertEqual(self.one.row().state, MachineState.RUNNING)
        self.assertNotIn(b"suspended", socket.body)

    def test_a_request_that_comes_before_the_freeze_stops_it(self) -> None:
        self.rest(seconds=HEARING / 2)
        self.assertEqual(self.one.row().state, MachineState.DRAINING)
        client = self.one.ask()
        self.one.let_pass(0.5, step=0.02)
        self.assertEqual(client.status, 200)
        self.assertNotIn("matrix-wake", client.headers)
        self.awake_everywhere()

    def test_use_at_the_one_that_would_suspend_it_is_told_at_once(self) -> None:
        known = self.one.row().last_active_at
        assert known is not None
        self.rest(seconds=HEARING / 2)
        self.two.ask()
        self.one.let_pass(0.2, step=0.02)
        told = self.one.row().last_active_at
        assert told is not None
        self.assertGreater(told, known)
        self.awake_everywhere()

    def test_so_is_that_of_its_connections_of_before(self) -> None:
        socket = open_websocket(self.two)
        self.two.route().machine.lost()
        self.two.awake()
        self.told()
        self.rest(seconds=HEARING / 2)
        self.assertEqual(self.one.row().state, MachineState.DRAINING)
        say(socket)
        self.one.let_pass(0.5, step=0.02)
        self.awake_everywhere()

    def test_it_stays_awake_if_others_cannot_hear_of_it(self) -> None:
        self.rest(seconds=HEARING / 2)
        self.one.store.lose()
        self.one.let_pass(HEARING / 2, step=0.02)
        self.one.store.recover()
        self.one.let_pass(3.0, step=0.02)
        self.assertEqual(self.one.asked("suspend"), 0)
        self.awake_everywhere()

    def test_so_does_one_at_a_router_that_never_had_it(self) -> None:
        three = World(owner="router:3", within=self.one)
        self.rest(seconds=HEARING / 2)
        client = three.ask()
        self.one.let_pass(0.5, step=0.02)
        self.assertEqual(client.status, 200)
        self.awake_everywhere()

    def test_one_that_comes_later_wakes_it_again(self) -> None:
        self.two.provider_twin.delays["suspend"] = 0.5
        self.rest(seconds=0.4)
        self.assertEqual(self.one.row().state, MachineState.SUSPENDING)
        client = self.one.ask()
        self.one.let_pass(1.5, step=0.02)
        self.assertEqual(client.status, 200)
        self.assertEqual(self.one.asked("start"), 1)
        self.assertTrue(client.headers["matrix-wake"].startswith("suspended;"))

    def test_a_crowd_at_both_makes_one_start(self) -> None:
        self.rest()
        self.one.provider_twin.delays["start"] = self.two.provider_twin.delays["start"] = 0.2
        clients = [world.ask() for _ in range(200) for world in (self.one, self.two)]
        self.one.let_pass(2.0, step=0.01)
        self.assertEqual([client.status for client in clients], [200] * 400)
        self.assertEqual(self.one.asked("start") + self.two.asked("start"), 1)
        self.assertEqual([kind for kind, _ in self.one.events()].count("wake"), 2)

    def test_progress_is_that_of_the_router_that_wakes_it(self) -> None:
        self.rest()
        self.two.provider_twin.delays["start"] = 1.0
        self.two.want()
        self.one.let_pass(0.2)
        self.one.want()
        self.one.let_pass(0.2)
        self.assertEqual(self.one.route().phase, "starting")
        self.one.let_pass(1.5)
        self.assertEqual(self.one.route().phase, "awake")
        assert self.one.route().estimate is not None
        self.assertGreater(self.one.route().estimate, 0.2, "it learns from it")

    def test_a_router_that_ended_in_the_middle_holds_nothing_up(self) -> None:
        row = self.one.row()
        run(self.one.store.change(row, state=MachineState.DRAINING, suspend_cause="idle"))
        self.one.let_pass(0.2)
        self.awake_everywhere()

    def test_one_that_ended_before_the_freeze_was_noted(self) -> None:
        row = self.one.row()
        run(self.one.store.change(row, state=MachineState.SUSPENDING))
        run(self.one.provider_twin.suspend(row))
        self.one.let_pass(0.2)
        self.assertIsNone(self.one.route().backend)
        self.assertEqual(self.one.ask().answered, False)
        self.one.let_pass(0.5)
        self.assertEqual(self.one.real(), MachineState.RUNNING)


class OutageTests(TwoRouters):
    """The directory goes away while the second router puts the machine to sleep."""

    def test_nobody_uses_what_another_was_about_to_freeze(self) -> None:
        self.two.provider.step = lambda name, when: (  # type: ignore[func-returns-value]
            self.one.store.lose() if (name, when) == ("suspend", "before") else None
        )
        self.two.provider_twin.delays["suspend"] = 1.0
        self.rest()
        self.assertEqual(self.one.real(), MachineState.RUNNING, "not frozen yet")
        self.refused_for_now()
        self.one.let_pass(1.0, step=0.02)
        self.assertEqual(self.one.real(), MachineState.SUSPENDED)
        self.served_again()

    def test_nor_what_it_may_freeze_or_not(self) -> None:
        self.lose_after_the_claim()
        self.rest()
        self.assertEqual(self.one.real(), MachineState.RUNNING)
        self.refused_for_now()
        client = self.two.ask()
        self.one.let_pass(0.1)
        self.assertEqual(client.status, 200, "the one who claimed it knows")
        self.two.directory.step = None
        self.served_again()
        self.awake_everywhere()

    def test_what_is_under_way_goes_on(self) -> None:
        client = self.slow_request()
        self.lose_after_the_claim()
        self.rest("operator")
        self.answer()
        self.one.let_pass(0.1)
        self.assertEqual(client.status, 200)

    def lose_after_the_claim(self) -> None:
        self.two.directory.step = lambda name, when: (
            self.one.store.lose() if name == "change" and when == "after" else None
        )

    def refused_for_now(self) -> None:
        client = self.one.ask()
        self.one.let_pass(0.1, step=0.02)
        self.assertEqual(client.status, 503)
        self.assertIn("retry-after", client.headers)
        self.assertEqual(self.one.route().phase, "resting")

    def served_again(self) -> None:
        self.one.store.recover()
        self.one.let_pass(2.0)
        client = self.one.ask()
        self.one.let_pass(1.0)
        self.assertEqual(client.status, 200)

    def test_a_wake_that_an_outage_broke_off_holds_nobody_up(self) -> None:
        self.rest()
        self.two.directory.step = lambda name, when: (
            self.one.store.lose() if (name, when) == ("find", "after") else None
        )
        self.two.provider_twin.fail("start", ProviderError("not now"))
        [error] = outcome(self.two.want())
        self.assertEqual(error.reason, "directory")
        self.two.directory.step = None
        self.one.store.recover()
        self.assertEqual(self.one.row().lease_owner, "router:2")
        client = self.one.ask()
        self.one.let_pass(2.0)
        self.assertEqual(client.status, 200)
        self.assertEqual(self.two.route().phase, "resting")


class RescueTests(TwoRouters):
    """A router that was too busy to object finds its machine frozen under its requests."""

    def test_it_is_woken_again_and_the_request_answered(self) -> None:
        client = self.slow_request()
        self.frozen_unheard()
        self.assertEqual(self.one.real(), MachineState.SUSPENDED)
        self.one.place().mute = False
        self.one.waker.changed(ALICE)
        self.one.let_pass(1.0)
        self.assertEqual(self.one.real(), MachineState.RUNNING)
        self.assertEqual(self.one.events()[-1], ("wake", "under way"))
        self.answer()
        self.assertEqual(client.status, 200)

    def test_and_stays_awake_for_as_long_as_it_lasts(self) -> None:
        self.slow_request()
        self.frozen_unheard()
        self.one.place().mute = False
        self.one.waker.changed(ALICE)
        for _ in range(round(LONG)):
            self.one.let_pass(1.0, step=0.25)
            for world in (self.one, self.two):
                run(world.idle.sweep())
                run(world.idle.touch())
        self.assertEqual(self.one.real(), MachineState.RUNNING)
        self.answer()
        self.assertEqual(self.one.route().requests, 0)

    def frozen_unheard(self) -> None:
        """The second router suspends it, and the first does not hear of it."""
        watchers, self.one.store._watchers._watchers = self.one.store._watchers._watchers, []
        row = run(self.two.fleet.advance(self.one.row(), LifecycleEvent.IDLE))[0]
        row = run(self.two.fleet.advance(row, LifecycleEvent.DRAINED))[0]
        run(self.two.provider_twin.suspend(row))
        run(self.two.fleet.settle(row, LifecycleEvent.SUSPENDED, suspend_cause="idle"))
        self.one.store._watchers._watchers = watchers
        self.one.turn()
