"""Putting a machine to sleep: who comes at any moment is served, and what fails keeps it awake."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import StaleRow
from matrix.machines import ProviderError
from matrix.metrics import series
from matrix.model import MachineState
from matrix.router.resting import put_away
from tests.router.streams import STREAM, open_websocket
from tests.router.world import ALICE, Client, World, outcome, run


def rest(world: World, seconds: float = 0.5) -> None:
    """The machine has not been used for long."""
    world.route().machine.rest("idle")
    world.let_pass(seconds)


class FreezingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.route = self.world.awake()

    def test_it_sleeps_and_the_row_says_so(self) -> None:
        backend = self.route.backend
        rest(self.world)
        row = self.world.row()
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)
        self.assertEqual((row.state, row.suspend_cause), (MachineState.SUSPENDED, "idle"))
        self.assertIsNone(row.lease_owner)
        self.assertEqual(self.world.events()[-1], ("suspend", "idle"))
        self.assertEqual(self.route.phase, "resting")
        self.assertEqual(self.world.registry.counter(series.SUSPENDS, "idle").value, 1)
        assert backend is not None
        self.assertTrue(backend.closed, "its connections look alive and are dead")

    def test_the_row_goes_through_each_state_under_a_lease(self) -> None:
        seen: list[tuple[Any, Any]] = []

        def step(name: str, when: str) -> None:
            if (name, when) == ("change", "after"):
                seen.append((self.world.row().state, self.world.row().lease_owner))

        self.world.directory.step = step  # type: ignore[assignment]
        rest(self.world)
        self.assertEqual(
            seen,
            [
                (MachineState.DRAINING, "router:1"),
                (MachineState.SUSPENDING, "router:1"),
                (MachineState.SUSPENDED, None),
            ],
        )

    def test_streams_are_ended_properly_first(self) -> None:
        self.world.place().answer = STREAM
        client = self.world.ask("/events")
        self.world.turn()
        self.assertIn(b"data: 1\n\n", client.body)
        at_freezing: list[bytes] = []
        self.world.provider.step = lambda name, when: at_freezing.append(client.body)  # type: ignore[func-returns-value]
        rest(self.world)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)
        self.assertTrue(at_freezing[0].endswith(b"0\r\n\r\n"), "a proper end, before the freeze")
        self.assertEqual(self.world.log.records[-1].close_reason, "suspended")

    def test_a_websocket_is_closed_with_1012(self) -> None:
        client = open_websocket(self.world)
        rest(self.world)
        self.assertIn(b"\x88\x0b" + (1012).to_bytes(2, "big") + b"suspended", client.body)

    def test_a_request_under_way_keeps_it_awake(self) -> None:
        self.world.place().mute = True
        client = self.world.ask("/slow")
        rest(self.world)
        self.assertEqual(self.world.asked("suspend"), 0)
        self.assertEqual(self.world.row().state, MachineState.RUNNING)
        self.world.place().say(self.world.place().open[-1], self.world.place().answer)
        self.assertEqual(client.status, 200)

    def test_bytes_that_pass_while_it_is_decided_keep_it_awake(self) -> None:
        backend = self.route.backend
        assert backend is not None

        def step(name: str, when: str) -> None:
            backend.used_at += 1  # a frame on a WebSocket

        self.world.directory.step = step  # type: ignore[assignment]
        rest(self.world)
        self.assertEqual(self.world.asked("suspend"), 0)
        self.assertIs(self.route.backend, backend)


class RacingTests(SynchronousTestCase):
    """A request at any step of the freeze is answered, by the same boot."""

    def racing_at(self, number: int) -> bool:
        world = World()
        world.awake()
        boot = world.row().boot_id
        world.provider_twin.calls.clear()
        clients: list[Client] = []
        too_late: list[bool] = []
        asked_to_suspend = False
        passed = 0

        def step(name: str, when: str) -> Any:
            nonlocal passed, asked_to_suspend
            passed += 1
            asked_to_suspend = asked_to_suspend or (name, when) == ("suspend", "after")
            if passed == number:
                too_late.append(asked_to_suspend)
                clients.append(world.ask("/meanwhile"))
            # Each call takes its time, so that the request is really in between.
            return deferLater(world.clock, 0.01, lambda: None)

        world.directory.step = world.provider.step = step
        world.route().machine.rest("idle")
        while world.route().phase == "suspending":
            world.let_pass(0.01, step=0.01)
        if passed < number:
            return False
        [client] = clients
        world.let_pass(2.0)
        self.assertEqual(client.status, 200, f"a request at step {number}")
        self.assertEqual(world.row().boot_id, boot)
        self.assertEqual(world.row().state, MachineState.RUNNING)
        self.assertEqual(world.route().phase, "awake")
        self.assertIsNotNone(world.route().backend)
        self.outcomes.append(too_late == [True])
        if too_late == [True]:
            self.assertIn("suspended;dur=", client.headers["matrix-wake"])
            self.assertEqual((world.asked("suspend"), world.asked("start")), (1, 1))
        else:
            self.assertNotIn("matrix-wake", client.headers, "nothing was woken")
            self.assertEqual((world.asked("start"), world.real()), (0, MachineState.RUNNING))
        return True

    def test_at_every_step(self) -> None:
        self.outcomes: list[bool] = []
        number = 1
        while self.racing_at(number):
            number += 1
        # Two changes of the row come before the provider is asked, a third and the event after.
        self.assertEqual(self.outcomes, [False] * 5 + [True] * 5)

    def test_one_during_the_drain_cancels_it(self) -> None:
        world = World()
        world.awake()
        world.route().machine.rest("idle")
        world.let_pass(0.05)
        client = world.ask()
        self.assertEqual(world.row().state, MachineState.RUNNING, "at once")
        self.assertEqual(world.registry.counter(series.SUSPENDS_CALLED_OFF, "idle").value, 1)
        world.turn()
        self.assertEqual((client.status, world.asked("suspend")), (200, 0))

    def test_one_before_the_provider_has_begun_calls_it_off(self) -> None:
        world = World()
        world.awake()
        world.provider_twin.delays["suspend"] = 1.0
        rest(world)
        client = world.ask()
        world.let_pass(1.0)
        self.assertEqual((client.status, world.asked("start")), (200, 1))
        self.assertNotIn("matrix-wake", client.headers)
        self.assertEqual(world.events(), [("wake", "request")])

    def test_one_while_it_falls_asleep_turns_it_round(self) -> None:
        world = World()
        world.awake()
        world.provider_twin.delays["suspending"] = 15.0
        rest(world)
        self.assertEqual(world.row().state, MachineState.SUSPENDING)
        client = world.ask()
        world.let_pass(0.15, step=0.01)
        self.assertEqual(client.status, 200)
        self.assertEqual((world.asked("suspend"), world.asked("start")), (1, 2))
        self.assertEqual(
            world.events(), [("wake", "request"), ("suspend", "idle"), ("wake", "request")]
        )

    def test_a_thousand_then_are_all_answered(self) -> None:
        world = World()
        world.awake()
        world.provider_twin.delays["suspending"] = 15.0
        rest(world, 0.45)
        clients = [world.ask() for _ in range(1000)]
        world.let_pass(2.0, step=0.01)
        self.assertEqual([client.status for client in clients], [200] * 1000)
        self.assertEqual(world.asked("start"), 2)


class KeepingAwakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.route = self.world.awake()
        self.backend = self.route.backend

    def still_awake(self) -> None:
        self.assertIs(self.route.backend, self.backend)
        self.assertEqual(self.route.phase, "awake")
        self.assertEqual(self.world.real(), MachineState.RUNNING)
        client = self.world.ask()
        self.world.turn()
        self.assertEqual(client.status, 200)

    def sleeps_later(self) -> None:
        self.world.let_pass(0.3)
        for _ in range(2):  # the first may only find out what the row says by now
            rest(self.world)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)
        self.assertEqual(self.world.row().state, MachineState.SUSPENDED)

    def test_a_provider_that_cannot(self) -> None:
        self.world.provider_twin.fail("suspend", ProviderError("a process does not stop"))
        rest(self.world)
        self.assertEqual(self.world.row().state, MachineState.RUNNING)
        self.assertIsNone(self.world.row().lease_owner)
        self.assertNotIn(("suspend", "idle"), self.world.events())
        self.still_awake()
        self.sleeps_later()

    def test_a_directory_that_is_down(self) -> None:
        self.world.store.lose()
        rest(self.world)
        self.assertEqual(self.world.asked("suspend"), 0)
        self.still_awake()
        self.world.store.recover()
        self.sleeps_later()

    def test_a_directory_that_goes_down_on_the_way(self) -> None:
        self.world.route().machine.rest("idle")
        self.world.store.lose()  # the row says draining, and goes on saying so
        self.world.let_pass(0.5)
        self.assertEqual(self.world.store._machines[ALICE].state, MachineState.DRAINING)
        self.assertEqual(self.world.asked("suspend"), 0)
        self.still_awake()
        self.world.store.recover()
        self.sleeps_later()

    def test_a_row_that_others_changed_unheard(self) -> None:
        row = self.world.row()
        self.world.store._machines[ALICE] = type(row)(
            **{name: getattr(row, name) for name in row.__slots__} | {"generation": 99}
        )
        rest(self.world)
        self.still_awake()
        self.sleeps_later()

    def test_an_unforeseen_failure(self) -> None:
        def trip(name: str, when: str) -> None:
            raise ArithmeticError("a bug")

        self.world.provider.step = trip  # type: ignore[assignment]
        rest(self.world)
        self.assertEqual(len(self.flushLoggedErrors(ArithmeticError)), 1)
        self.world.provider.step = None
        self.still_awake()
        self.sleeps_later()

    def test_who_waits_meanwhile_is_served(self) -> None:
        self.world.provider_twin.delays["suspend"] = 0.5
        self.world.provider_twin.fail("suspend", ProviderError("no"))
        rest(self.world, 0.3)
        client = self.world.ask()
        self.world.let_pass(1.0)
        self.assertEqual(client.status, 200)
        self.assertNotIn("matrix-wake", client.headers)


class UnrecordedSleepTests(SynchronousTestCase):
    """It is frozen, and the directory cannot be told: frozen it is all the same."""

    def setUp(self) -> None:
        self.world = World()
        self.route = self.world.awake()

        def cut(name: str, when: str) -> None:
            if (name, when) == ("suspend", "after"):
                self.world.store.lose()

        self.world.provider.step = cut  # type: ignore[assignment]
        rest(self.world)

    def test_no_request_is_sent_to_what_cannot_answer(self) -> None:
        self.assertIsNone(self.route.backend)
        [error] = outcome(self.world.want())
        self.assertEqual(error.reason, "directory")

    def test_it_wakes_once_the_directory_is_back(self) -> None:
        self.world.store.recover()
        self.world.awake()
        self.assertEqual(self.world.fleet_twin.machines[ALICE].boots, 1)


class PuttingAwayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.awake()
        self.world.route().machine.lost()

    def put_away(self) -> None:
        row = self.world.row()
        self.assertEqual(run(put_away(self.world.fleet, row, "blocked")), [None])

    def test_it_sleeps_without_a_route(self) -> None:
        self.put_away()
        self.assertEqual(self.world.row().state, MachineState.SUSPENDED)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_two_routers_that_do_it_at_once_do_not_mind(self) -> None:
        def other(name: str, when: str) -> None:
            raise StaleRow("the other was faster")

        self.world.directory.step = other  # type: ignore[assignment]
        self.put_away()
        self.assertEqual(self.world.real(), MachineState.RUNNING)
