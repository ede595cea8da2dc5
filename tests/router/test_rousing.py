"""One attempt to wake: from every state, through every failure, beside other routers."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import DirectoryUnavailable
from matrix.errors import Unavailable
from matrix.machines import ProviderError, Started
from matrix.model import MachineState, UserId
from matrix.router.fleet import SOON
from matrix.router.knocking import INTERVAL
from matrix.router.owners import this_router
from matrix.router.rousing import OTHERS_INTERVAL
from tests.router.world import ALICE, World, outcome, run


class ProvisioningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def test_the_row_is_there_before_the_provider_is_asked(self) -> None:
        rows: list[Any] = []
        self.world.provider.step = lambda name, when: rows.append((name, when, self.world.row()))
        self.world.awake()
        name, when, row = rows[0]
        self.assertEqual((name, when), ("provision", "before"))
        self.assertEqual(row.state, MachineState.PROVISIONING)
        self.assertEqual(row.lease_owner, "router:1")

    def test_the_id_is_kept_before_it_is_started(self) -> None:
        rows: list[Any] = []
        self.world.provider.step = lambda name, when: rows.append((name, when, self.world.row()))
        self.world.awake()
        [row] = [row for name, when, row in rows if (name, when) == ("start", "before")]
        self.assertEqual((row.machine_id, row.state), ("memory-1", MachineState.STARTING))

    def test_at_the_end_everything_is_known_and_nobody_holds_it(self) -> None:
        self.world.awake()
        row = self.world.row()
        self.assertEqual(str(row.address), f"unix:/memory/{ALICE}")
        self.assertEqual((row.boot_id, row.lease_owner), ("memory-1-boot-1", None))
        self.assertIsNone(row.lease_expires_at)
        self.assertIsNotNone(row.last_wake_at)
        self.assertEqual(self.world.events(), [("wake", "request")])

    def test_a_volume_that_was_moved_is_followed(self) -> None:
        start = self.world.provider_twin.start

        async def elsewhere(*args: Any) -> Started:
            return replace(await start(*args), volume_id="vol_2")

        self.patch(self.world.provider_twin, "start", elsewhere)
        self.world.awake()
        self.assertEqual(self.world.row().volume_id, "vol_2")

    def test_the_machine_is_told_its_own_token(self) -> None:
        self.world.ask()
        self.world.let_pass(0.2)
        token = self.world.fleet_twin.machines[ALICE].environment["MATRIX_MACHINE_TOKEN"]
        self.assertIn(f"Authorization: Bearer {token}\r\n".encode(), self.world.place().heads[0])
        self.assertNotIn(b"alice-token", self.world.place().heads[0])

    def test_a_provider_that_fails_again_and_again_is_asked_again_and_again(self) -> None:
        self.world.provider_twin.fail("provision", ProviderError("full"), times=3)
        for seconds in (1.0, 2.0, 4.0):
            [error] = outcome(self.world.want())
            self.assertEqual((error.reason, error.retry_after), ("provider", seconds))
            self.assertEqual(self.world.row().state, MachineState.FAILED)
            self.assertEqual(self.world.row().state_reason, "full")
            self.world.let_pass(seconds - 0.2)
            asked = self.world.asked("provision")
            [early] = outcome(self.world.want())
            self.assertEqual((early.status, early.reason), (503, "paused"))
            self.assertApproximates(early.retry_after, 0.2, 0.01)
            self.assertEqual(self.world.asked("provision"), asked, "not by each request")
            self.world.let_pass(0.2)
        self.world.awake()
        self.assertEqual(self.world.fleet_twin.made, 1)

    def test_another_router_waits_as_long_and_so_does_the_next_process(self) -> None:
        self.world.provider_twin.fail("provision", ProviderError("full"))
        outcome(self.world.want())
        other = World(owner="router:2", within=self.world)
        [error] = outcome(other.want())
        self.assertEqual((error.reason, other.provider_twin.calls), ("paused", []))
        calls = self.world.store.calls
        outcome(other.want())
        self.assertEqual(self.world.store.calls, calls, "it is known by now")
        self.world.let_pass(1.0)
        other.awake()

    def test_an_operator_need_not_wait(self) -> None:
        self.world.provider_twin.fail("provision", ProviderError("full"))
        outcome(self.world.want())
        answer = outcome(self.world.want(cause="operator"))
        self.world.let_pass(0.2)
        self.assertEqual(answer, [self.world.route()])

    def test_a_lost_machine_is_made_again(self) -> None:
        self.world.asleep()
        del self.world.fleet_twin.machines[ALICE]
        self.world.awake()
        self.assertIn(("gone", "wake"), self.world.events())
        self.assertEqual(self.world.row().machine_id, "memory-2")
        self.assertEqual(self.world.asked("provision"), 2)


class CrashTests(SynchronousTestCase):
    """A failure between any two steps leaves what the next attempt makes good."""

    def failing_at(self, number: int, prepare: str) -> bool:
        """Fail the attempt's step of that number; whether it has so many."""
        world = World()
        if prepare == "asleep":
            world.asleep()
        elif prepare == "lost":
            world.asleep()
            del world.fleet_twin.machines[ALICE]
            run(world.store.change(world.row(), state=MachineState.LOST))
        passed = 0

        def step(error: Exception) -> Any:
            def trip(name: str, when: str) -> None:
                nonlocal passed
                passed += 1
                if passed == number:
                    raise error

            return trip

        world.directory.step = step(DirectoryUnavailable("cut off"))
        world.provider.step = step(ProviderError("cut off"))
        answer = outcome(world.want())
        world.let_pass(0.3)
        if passed < number:
            self.assertEqual(answer, [world.route()])
            return False
        if answer != [world.route()]:  # what comes after it is ready may fail unseen
            self.assertIsInstance(answer[0], Unavailable)
        world.directory.step = world.provider.step = None
        world.let_pass(1.0)  # the pause after a failure
        again = outcome(world.want())
        world.let_pass(0.3)
        self.assertEqual(again, [world.route()], f"after a failure at step {number}, {prepare}")
        self.assertEqual(len(world.fleet_twin.machines), 1)
        self.assertEqual(world.fleet_twin.made, 2 if prepare == "lost" else 1)
        self.assertEqual(world.row().machine_id, world.fleet_twin.machines[ALICE].machine_id)
        self.assertEqual(world.row().boot_id, world.fleet_twin.machines[ALICE].boot_id)
        self.assertEqual(world.row().state, MachineState.RUNNING)
        self.assertEqual(world.real(), MachineState.RUNNING)
        return True

    def every_step(self, prepare: str, at_least: int) -> None:
        number = 1
        while self.failing_at(number, prepare):
            number += 1
        self.assertGreater(number, at_least)

    def test_of_the_first_wake(self) -> None:
        self.every_step("new", 16)

    def test_of_a_wake_from_sleep(self) -> None:
        self.every_step("asleep", 10)

    def test_of_making_a_lost_machine_again(self) -> None:
        self.every_step("lost", 16)


class OtherRouterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.asleep()
        self.world.provider_twin.calls.clear()

    def lease(self, seconds: float, owner: str = "router:2", **fields: object) -> None:
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        change = self.world.store.change(
            self.world.row(), lease_owner=owner, lease_expires_at=expires, **fields
        )
        self.assertNotIsInstance(run(change)[0], Exception)

    def test_a_live_lease_is_waited_for(self) -> None:
        self.lease(60, state=MachineState.STARTING)
        answer = outcome(self.world.want())
        self.world.let_pass(5.0)
        self.assertEqual((answer, self.world.provider_twin.calls), ([], []))
        self.world.fleet_twin.machines[ALICE].state = MachineState.RUNNING  # by the other one
        free = {"lease_owner": None, "lease_expires_at": None}
        run(self.world.store.change(self.world.row(), state=MachineState.RUNNING, **free))
        self.world.let_pass(OTHERS_INTERVAL + 0.1)
        self.assertEqual(answer, [self.world.route()])
        self.assertEqual(self.world.provider_twin.calls, [], "it was ready without our doing")

    def test_one_that_never_ends_ends_the_attempt(self) -> None:
        self.lease(3600)
        answer = outcome(self.world.want())
        self.world.let_pass(61.0, step=0.1)
        self.assertEqual(answer[0].reason, "lease")
        self.assertEqual(self.world.provider_twin.calls, [])

    def test_an_expired_lease_is_taken_over(self) -> None:
        self.lease(-1, state=MachineState.STARTING)
        self.world.awake()
        self.assertEqual(self.world.asked("start"), 1)

    def test_the_lease_of_a_router_that_ended_holds_nobody_up(self) -> None:
        ended = this_router().replace(f":{os.getpid()}:", ":4194305:")  # over PID_MAX_LIMIT
        self.lease(60, owner=ended, state=MachineState.STARTING)
        self.world.awake()
        self.assertEqual(self.world.asked("start"), 1)

    def test_our_own_lease_from_before_holds_nobody_up(self) -> None:
        self.lease(60, owner="router:1", state=MachineState.SUSPENDING)
        self.world.awake()

    def stopped(self) -> None:
        run(self.world.store.change(self.world.row(), state=MachineState.STOPPED))

    def test_a_row_that_was_changed_meanwhile_is_read_again(self) -> None:
        changes = 0

        def step(name: str, when: str) -> None:
            nonlocal changes
            if name in ("find", "create_machine") and when == "after" and changes < 3:
                changes += 1
                row = self.world.row()
                run(self.world.store.change(row, wake_cause=f"other {changes}"))

        self.stopped()  # one that sleeps is claimed as it is found
        self.world.directory.step = step  # type: ignore[assignment]
        self.world.awake()
        self.assertEqual(changes, 3)
        self.assertEqual(self.world.row().wake_cause, "request")

    def test_a_row_that_is_deleted_meanwhile_is_made_again(self) -> None:
        deleted = False

        def step(name: str, when: str) -> None:
            nonlocal deleted
            if (name, when) == ("find", "after") and not deleted:
                deleted = True
                self.world.store.drop_machine(ALICE)

        self.stopped()  # one that sleeps is claimed as it is found
        self.world.directory.step = step  # type: ignore[assignment]
        self.world.awake()
        self.assertEqual(self.world.fleet_twin.made, 1, "its machine was adopted")

    def test_two_routers_wake_it_once(self) -> None:
        self.world.provider_twin.delays["start"] = 0.5
        other = World(owner="router:2", within=self.world)
        answers = [outcome(self.world.want()), outcome(other.want())]
        self.world.let_pass(2.0)
        self.assertEqual(answers, [[self.world.route()], [other.route()]])
        self.assertEqual(self.world.asked("start") + other.asked("start"), 1)
        self.assertEqual(self.world.events().count(("wake", "request")), 2)  # first, and this


class ReadinessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def test_it_is_asked_flatly_until_it_answers(self) -> None:
        self.world.asleep()
        place = self.world.place()
        place.deaf, place.probes = True, []
        answer = outcome(self.world.want())
        self.world.let_pass(1.0, step=INTERVAL)
        self.assertEqual(answer, [])
        gaps = [after - before for before, after in pairwise(place.probes)]
        self.assertGreater(len(gaps), 40)
        self.assertApproximates(min(gaps), max(gaps), INTERVAL)
        self.assertLess(max(gaps), 2.5 * INTERVAL)
        place.deaf = False
        self.world.let_pass(0.2)
        self.assertEqual(answer, [self.world.route()])

    def test_running_is_not_ready(self) -> None:
        self.world.place().mute = True
        answer = outcome(self.world.want())
        self.world.let_pass(5.0)
        self.assertEqual(answer, [])
        self.assertEqual(self.world.route().phase, "waiting")
        self.world.place().mute = False
        self.world.let_pass(5.0)
        self.assertEqual(answer, [self.world.route()])

    def test_any_answer_will_do(self) -> None:
        self.world.place().deaf = True
        self.world.want()
        self.world.place().deaf = False
        self.world.let_pass(0.2)
        self.assertEqual(self.world.route().phase, "awake")

    def test_one_that_never_answers_fails_at_the_limit_and_may_be_tried_again(self) -> None:
        self.world.place().deaf = True
        answer = outcome(self.world.want())
        self.world.let_pass(59.0, step=0.5)
        self.assertEqual(answer, [])
        self.world.let_pass(2.0, step=0.5)
        self.assertEqual(answer[0].reason, "no-answer")
        self.assertEqual(self.world.row().state, MachineState.FAILED)
        self.assertIn("60 s", self.world.row().state_reason or "")
        self.assertEqual(self.world.events()[-1], ("failed", "wake"))
        self.world.place().deaf = False
        self.world.let_pass(SOON)
        self.world.awake()

    def test_one_that_dies_at_start_fails_at_once(self) -> None:
        self.world.place().deaf = True
        answer = outcome(self.world.want())
        self.world.let_pass(1.0)
        self.world.fleet_twin.die(ALICE)
        self.world.let_pass(0.2)
        [error] = answer
        assert isinstance(error, Unavailable)
        self.assertEqual((error.status, error.reason), (503, "died"))
        self.assertEqual(self.world.row().state, MachineState.FAILED)
        self.assertIsNone(self.world.row().lease_owner)
        self.world.place().deaf = False
        self.world.let_pass(SOON)
        self.world.awake()
        self.assertIsNone(self.world.row().state_reason)

    def test_a_provider_that_cannot_see_it_for_a_moment_does_not_fail_it(self) -> None:
        self.world.place().deaf = True
        answer = outcome(self.world.want())
        self.world.let_pass(0.5)
        self.world.provider_twin.fail("follow", ProviderError("busy"))
        self.world.let_pass(0.5)
        self.world.place().deaf = False
        self.world.let_pass(0.5)
        self.assertEqual(answer, [self.world.route()])

    def test_the_report_tells_the_start_from_the_readiness(self) -> None:
        self.world.asleep()
        self.world.provider_twin.delays["start"] = 0.4
        self.world.place().deaf = True
        self.world.want()
        self.world.let_pass(1.4)
        self.world.place().deaf = False
        self.world.let_pass(0.3)
        report = self.world.route().wake
        assert report is not None
        self.assertEqual((report.was, report.cause), (MachineState.SUSPENDED, "request"))
        self.assertApproximates(report.start_s, 0.4, 0.06)
        self.assertApproximates(report.ready_s, 1.05, 0.15)
        [event, *_] = run(self.world.store.events(UserId(ALICE)))[0]
        self.assertEqual(event.detail["was"], "suspended")
        self.assertApproximates(event.detail["start_ms"], 400, 60)

    def test_a_machine_that_its_row_calls_running_is_used_if_it_answers(self) -> None:
        self.world.awake()
        other = World(owner="router:2", within=self.world)
        answer = outcome(other.want())
        other.turn()
        self.assertEqual(answer, [other.route()])
        self.assertEqual(other.provider_twin.calls, [])
        self.assertEqual(other.events(), [("wake", "request")], "that was the first router's")

    def test_and_started_if_it_does_not(self) -> None:
        self.world.awake()
        other = World(owner="router:2", within=self.world)
        self.world.fleet_twin.machines[ALICE].state = MachineState.STOPPED  # and nobody saw it
        answer = outcome(other.want())
        other.let_pass(0.3)
        self.assertEqual(answer, [other.route()])
        self.assertEqual(other.asked("start"), 1)

    def test_each_phase_is_told_in_order(self) -> None:
        phases: list[str] = []
        self.world.route().listeners[lambda route: phases.append(route.phase)] = None
        self.world.directory.step = lambda name, when: deferLater(
            self.world.clock, 0.01, lambda: None
        )
        self.world.want()
        self.world.let_pass(1.0)
        self.assertEqual(phases, ["queued", "provisioning", "starting", "waiting", "awake"])
