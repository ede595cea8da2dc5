"""A route remembers what its machine's wakes take, tells what goes on, and answers who waits."""

from __future__ import annotations

import time

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import Unavailable
from matrix.model import UserId
from matrix.router.routes import FORGET, SLIM, Route, RouteTable
from tests.router.world import ALICE, BOB, World, outcome


class Driver:
    """Does nothing, and tells of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def begin_wake(self, route: Route) -> None:
        self.asked.append("begin_wake")

    def begin_rest(self, route: Route, cause: str) -> None:
        self.asked.append(f"begin_rest {cause}")

    def release(self, route: Route) -> None:
        self.asked.append("release")


class Backend:
    closed = False
    requests = 0
    streams = frozenset[object]()

    def close(self) -> None:
        self.closed = True


class RouteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.driver = Driver()
        self.route = Route(ALICE, self.driver)

    def test_the_first_wake_is_the_estimate(self) -> None:
        self.assertIsNone(self.route.estimate)
        self.route.learn(2.0)
        self.assertEqual(self.route.estimate, 2.0)

    def test_later_wakes_move_the_estimate_a_part_of_the_way(self) -> None:
        self.route.learn(2.0)
        self.route.learn(12.0)
        self.assertAlmostEqual(self.route.estimate or 0, 5.0)
        for _ in range(30):
            self.route.learn(1.0)
        self.assertAlmostEqual(self.route.estimate or 0, 1.0, places=3)

    def test_listeners_hear_of_each_phase_and_may_leave_meanwhile(self) -> None:
        heard: list[str] = []

        def once(route: Route) -> None:
            heard.append(f"once {route.phase}")
            del route.listeners[once]

        self.route.listeners = {once: None, lambda route: heard.append(route.phase): None}
        self.route.enter("queued")
        self.route.enter("starting")
        self.assertEqual(heard, ["once queued", "queued", "starting"])

    def test_refusing_answers_everybody_once(self) -> None:
        waiters: list[Deferred[Route]] = [Deferred() for _ in range(3)]
        answers = [outcome(waiter) for waiter in waiters]
        self.route.waiters = dict.fromkeys(waiters)
        error = Unavailable(reason="died")
        self.route.refuse(error)
        self.assertEqual(answers, [[error]] * 3)
        self.assertEqual(self.route.waiters, {})

    def test_refusing_passes_over_who_gave_up_while_others_were_refused(self) -> None:
        first: Deferred[Route] = Deferred()
        second: Deferred[Route] = Deferred()
        first.addErrback(lambda failure: second.cancel())
        answer = outcome(second)
        self.route.waiters = {first: None, second: None}
        self.route.refuse(Unavailable())
        self.assertIsInstance(answer[0], CancelledError)

    def test_cutting_closes_the_connections_and_rests(self) -> None:
        self.route.backend = backend = Backend()  # type: ignore[assignment]
        self.route.phase = "awake"
        self.route.cut()
        self.assertTrue(backend.closed)
        self.assertIsNone(self.route.backend)
        self.assertEqual(self.route.phase, "resting")

    def test_a_rest_forgets_the_wake_before_it(self) -> None:
        self.route.wake = object()  # type: ignore[assignment]
        self.route.wanted = True
        self.route.begin_rest("idle")
        self.assertIsNone(self.route.wake)
        self.assertFalse(self.route.wanted)
        self.assertEqual(self.driver.asked, ["begin_rest idle"])


class TableTests(SynchronousTestCase):
    def test_routes_are_made_on_demand_and_kept(self) -> None:
        table, driver = RouteTable(), Driver()
        self.assertIsNone(table.get(ALICE))
        route = table.ensure(ALICE, driver)
        self.assertIs(table.ensure(ALICE, driver), route)
        self.assertIs(table.get(ALICE), route)
        table.ensure(BOB, driver)
        self.assertEqual(len(table), 2)

    def test_it_may_grow_while_somebody_goes_through_it(self) -> None:
        table, driver = RouteTable(), Driver()
        table.ensure(ALICE, driver)
        for route in table:
            table.ensure(UserId(f"{route.user_id}-more"), driver)
        self.assertEqual(len(table), 2)


class GaugeTests(SynchronousTestCase):
    def test_what_is_under_way(self) -> None:
        world = World()
        world.awake()
        world.place().answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n"
        world.ask()
        world.let_pass(0.1)
        self.assertEqual((world.routes.requests(), world.routes.streams("sse")), (0, 1))
        world.place().answer = b""
        world.ask()
        world.let_pass(0.1)
        self.assertEqual((world.routes.requests(), world.routes.streams("sse")), (1, 1))
        self.assertEqual(world.routes.streams("websocket"), 0)
        self.assertGreater(world.counters.bytes_out, world.counters.bytes_in)
        self.assertGreater(world.counters.bytes_in, 0)


class TidyTests(SynchronousTestCase):
    """Of machines that rest little is known, and after a while nothing."""

    def setUp(self) -> None:
        self.world = World()
        self.wall = time.time()
        self.world.routes._wall = lambda: self.wall

    def asleep(self) -> Route:
        self.world.asleep()
        route = self.world.route()
        route._wall = self.world.routes._wall
        route.since = self.wall
        return route

    def tidied(self, seconds: float) -> Route | None:
        self.wall += seconds
        self.world.routes.tidy()
        return self.world.routes.get(ALICE)

    def test_after_a_while_only_what_a_wake_cannot_learn_is_kept(self) -> None:
        route = self.asleep()
        self.assertIsNotNone(route.row)
        self.tidied(SLIM - 1)
        self.assertIsNotNone(route.row)
        self.tidied(2)
        self.assertEqual((route.row, route.wake, route.identity), (None, None, b""))
        self.assertIsNotNone(route.estimate)

    def test_later_it_is_forgotten_and_a_request_wakes_the_machine_all_the_same(self) -> None:
        self.asleep()
        self.assertIsNotNone(self.tidied(FORGET - 1))
        self.assertIsNone(self.tidied(2))
        self.assertEqual(len(self.world.routes), 0)
        client = self.world.ask()
        self.world.let_pass(0.3)
        self.assertEqual(client.status, 200)

    def test_a_slim_one_wakes_and_sleeps_as_before(self) -> None:
        route = self.asleep()
        self.tidied(SLIM + 1)
        client = self.world.ask()
        self.world.let_pass(0.3)
        self.assertEqual(client.status, 200)
        self.assertIsNotNone(route.row)

    def test_one_that_is_awake_or_waited_for_stays(self) -> None:
        route = self.world.awake()
        self.assertIs(self.tidied(2 * FORGET), route)
        self.assertIsNotNone(route.row)
        route = self.asleep()
        route.listeners[lambda route: None] = None
        self.assertIs(self.tidied(2 * FORGET), route)
        self.assertIsNotNone(route.row)

    def test_one_with_something_under_way_on_connections_of_before_stays(self) -> None:
        route = self.world.awake()
        self.world.ask()
        self.assertEqual(route.requests, 1)
        route.machine.lost()
        self.assertEqual(route.phase, "resting")
        self.assertIs(self.tidied(2 * FORGET), route)
