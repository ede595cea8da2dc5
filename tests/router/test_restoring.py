"""What a machine says of a restore, and what is made of it: in the wake, and towards who waits."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.model import MachineState
from matrix.router.restoring import REASON_LENGTH, Restoring
from tests.router.world import World, outcome


def saying(state: str) -> bytes:
    return (
        f"HTTP/1.1 503 Service Unavailable\r\nMatrix-Machine: {state}\r\nContent-Length: 0\r\n\r\n"
    ).encode()


class ReadingTests(SynchronousTestCase):
    def test_numbers(self) -> None:
        said = Restoring.read(b"restoring; done=25; total=200")
        self.assertEqual(said, Restoring(25, 200))
        self.assertEqual(said.percent, 12)
        self.assertEqual(said.left(10.0), 70.0)

    def test_a_total_that_is_not_known_yet(self) -> None:
        said = Restoring.read(b"restoring; done=25; total=0")
        self.assertIsNone(said.percent)
        self.assertIsNone(said.left(10.0))
        self.assertIn("unknown", str(said))

    def test_what_it_waits_for(self) -> None:
        said = Restoring.read(b"restoring; waiting=no route to the repository")
        self.assertEqual(said.waiting, "no route to the repository")
        self.assertIn("no route", str(said))

    def test_more_than_all_is_all(self) -> None:
        self.assertEqual(Restoring.read(b"restoring; done=9; total=3").percent, 100)
        self.assertEqual(Restoring.read(b"restoring; done=9; total=3").left(5.0), 0.0)

    @given(st.binary())
    def test_anything_is_read_as_something_harmless(self, state: bytes) -> None:
        said = Restoring.read(b"restoring;" + state)
        self.assertGreaterEqual(said.done, 0)
        self.assertLessEqual(len(said.waiting), REASON_LENGTH)
        self.assertTrue(str(said).isprintable())


class WakeTests(SynchronousTestCase):
    """A wake goes on as long as the restore does."""

    def setUp(self) -> None:
        self.world = World()
        self.world.place().probe_answer = saying("restoring; done=0; total=1000")

    def done(self, count: int) -> None:
        self.world.place().probe_answer = saying(f"restoring; done={count}; total=1000")

    def ready(self) -> None:
        self.world.place().probe_answer = b"HTTP/1.1 204 No Content\r\n\r\n"

    def test_it_may_take_far_longer_than_any_other_wake(self) -> None:
        answer = outcome(self.world.want())
        for count in range(100, 1000, 100):
            self.world.let_pass(50.0, step=0.25)
            self.done(count)
            self.assertEqual(answer, [])
        self.assertEqual(self.world.route().phase, "restoring")
        self.ready()
        self.world.let_pass(1.0)
        self.assertEqual(answer, [self.world.route()])
        self.assertEqual(self.world.asked("start"), 1)

    def test_others_leave_it_alone_as_long(self) -> None:
        self.world.want()
        for count in range(100, 500, 100):
            self.world.let_pass(50.0, step=0.25)
            self.done(count)
            self.assertTrue(self.world.fleet.leased(self.world.row()))
        other = World(owner="router:2", within=self.world)
        other.want()
        other.let_pass(2.0)
        self.assertEqual(other.provider_twin.calls, [])

    def test_one_that_comes_to_nothing_ends_and_says_so(self) -> None:
        answer = outcome(self.world.want())
        self.done(100)
        self.world.let_pass(59.0, step=0.25)
        self.assertEqual(answer, [])
        self.world.let_pass(3.0, step=0.25)
        self.assertEqual(answer[0].reason, "no-answer")
        self.assertEqual(self.world.row().state, MachineState.FAILED)
        self.assertIn("100 of 1000 bytes", self.world.row().state_reason or "")

    def test_waiting_for_the_repository_is_no_progress(self) -> None:
        answer = outcome(self.world.want())
        for number in range(7):
            state = f"restoring; waiting=the repository, for the {number}th time"
            self.world.place().probe_answer = saying(state)
            self.world.let_pass(10.0, step=0.25)
        self.assertEqual(answer[0].reason, "no-answer")
        self.assertIn("the repository", self.world.row().state_reason or "")

    def test_who_waits_is_told_how_far_it_is(self) -> None:
        stream = self.world.ask("/-/wake/events")
        self.world.let_pass(10.0, step=0.25)
        self.done(250)
        self.world.let_pass(1.0, step=0.25)
        lines = [line for line in stream.body.decode().split("\n") if line.startswith("data: {")]
        told = json.loads(lines[-1].removeprefix("data: "))
        self.assertEqual((told["state"], told["percent"]), ("restoring", 25))
        self.assertEqual((told["done"], told["total"]), (250, 1000))
        self.assertApproximates(told["estimate_ms"], 42_000, 4_000)

    def test_who_has_waited_long_enough_learns_when_it_will_be_done(self) -> None:
        client = self.world.ask()
        self.world.let_pass(10.0, step=0.25)
        self.done(250)
        self.world.let_pass(21.0, step=0.25)
        problem = json.loads(client.body)
        self.assertEqual((client.status, problem["reason"]), (503, "restoring"))
        self.assertIn("250 of 1000 bytes", problem["detail"])
        self.assertGreater(int(client.headers["retry-after"]), 5)

    def test_the_next_wake_begins_with_a_clean_slate(self) -> None:
        self.world.want()
        self.world.let_pass(1.0)
        self.ready()
        self.world.let_pass(1.0)
        self.world.asleep()
        self.world.awake()
        self.assertIsNone(self.world.route().restoring)
