"""Many callers, one attempt: who is let go when, who is refused, and what cancels nothing."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import Blocked, Gone, Unavailable
from matrix.machines import ProviderError
from matrix.metrics import series
from matrix.model import MachineState, User, UserState
from matrix.router.wake import OVERTIME, RELEASE_BATCH, RELEASE_INTERVAL
from tests.router.world import ALICE, BOB, World, outcome, run


class ManyCallersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.asleep()
        self.world.provider_twin.calls.clear()

    def test_a_thousand_callers_share_one_start(self) -> None:
        self.world.provider_twin.delays["start"] = 0.5
        answers = [outcome(self.world.want()) for _ in range(1000)]
        self.world.let_pass(2.0, step=0.01)
        route = self.world.route()
        self.assertTrue(all(answer == [route] for answer in answers))
        self.assertEqual(self.world.asked("start"), 1)
        self.assertEqual(self.world.asked("provision"), 0)

    def test_they_are_let_go_a_few_at_a_time(self) -> None:
        self.world.provider_twin.delays["start"] = 0.5
        answers = [outcome(self.world.want()) for _ in range(100)]
        self.world.let_pass(0.6, step=0.1)
        batches = []
        while (before := sum(map(len, answers))) < 100:
            self.world.clock.advance(RELEASE_INTERVAL)
            batches.append(sum(map(len, answers)) - before)
        self.assertLessEqual(max(batches), RELEASE_BATCH)
        self.assertLessEqual(len(batches), 100 // RELEASE_BATCH + 1)

    def test_the_first_comer_is_let_go_first(self) -> None:
        order: list[int] = []
        for number in range(40):
            self.world.want().addCallback(lambda _, number=number: order.append(number))
        self.world.let_pass(1.0)
        self.assertEqual(order, list(range(40)))

    def test_late_callers_do_not_hurry_the_batches(self) -> None:
        for _ in range(200):
            self.world.want()
        self.world.clock.advance(0)
        self.assertEqual(self.world.route().phase, "awake")
        waiting = len(self.world.route().waiters)
        late = [outcome(self.world.want()) for _ in range(10)]
        self.assertEqual(len(self.world.route().waiters), waiting + 10)
        self.world.let_pass(1.0)
        self.assertTrue(all(late))

    def test_who_still_waits_when_it_is_lost_again_gets_another_attempt(self) -> None:
        answers = [outcome(self.world.want()) for _ in range(40)]
        self.world.clock.advance(0)
        self.assertGreater(len(self.world.route().waiters), 0)
        self.world.fleet_twin.die(ALICE)
        self.world.let_pass(1.0)
        self.assertTrue(all(answer == [self.world.route()] for answer in answers))
        self.assertEqual(self.world.asked("start"), 2)

    def test_who_is_awake_already_goes_on_at_once(self) -> None:
        self.world.awake()
        self.assertEqual(outcome(self.world.want()), [self.world.route()])

    def test_each_user_has_an_attempt_of_their_own(self) -> None:
        self.world.provider_twin.delays.update(start=0.5, provision=0.5)
        alice, bob = outcome(self.world.want()), outcome(self.world.want(BOB))
        self.world.let_pass(0.7)
        self.assertEqual((len(alice), len(bob)), (1, 0))
        self.world.let_pass(0.7)
        self.assertEqual(len(bob), 1)

    def test_waking_is_measured(self) -> None:
        world = World()
        world.asleep()
        world.directory.step = lambda name, when: (
            deferLater(world.clock, 0.1, lambda: None)
            if (name, when) == ("change", "before")
            else None
        )
        world.want(cause="alarm")
        world.let_pass(1.0)
        self.assertEqual(world.registry.counter(series.WAKES, "suspended", "alarm").value, 1)
        assert world.route().estimate is not None
        self.assertGreater(world.route().estimate, 0.0)


class GivingUpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.provider_twin.delays["start"] = 1.0

    def test_a_failure_answers_everybody(self) -> None:
        self.world.provider_twin.fail("start", ProviderError("no memory", retry_after=7.0))
        answers = [outcome(self.world.want()) for _ in range(50)]
        self.world.let_pass(1.5)
        for [error] in answers:
            assert isinstance(error, Unavailable)
            self.assertEqual((error.reason, error.retry_after), ("provider", 7.0))
            self.assertNotIn("no memory", error.detail, "that is for the operator alone")
        self.assertEqual(self.world.row().state_reason, "no memory")
        failures = self.world.registry.counter(series.WAKE_FAILURES, "request")
        self.assertEqual(failures.value, 1)

    def test_the_next_caller_tries_again(self) -> None:
        self.world.provider_twin.fail("start", ProviderError("no memory"))
        outcome(self.world.want())
        self.world.let_pass(2.5)
        answer = outcome(self.world.want())
        self.world.let_pass(1.5)
        self.assertEqual(answer, [self.world.route()])
        self.assertIsNone(self.world.row().state_reason)

    def test_who_gives_up_does_not_stop_the_attempt(self) -> None:
        patient, hasty = self.world.want(), self.world.want()
        gone, stays = outcome(hasty), outcome(patient)
        self.world.let_pass(0.5)
        hasty.cancel()
        self.assertIsInstance(gone[0], CancelledError)
        self.world.let_pass(1.0)
        self.assertEqual(stays, [self.world.route()])

    def test_it_comes_up_even_if_all_have_left(self) -> None:
        only = self.world.want()
        outcome(only)
        only.cancel()
        self.world.let_pass(1.5)
        self.assertEqual(self.world.row().state, MachineState.RUNNING)
        self.assertEqual(self.world.route().phase, "awake")

    def test_who_comes_after_all_left_joins_the_attempt_and_not_its_cause(self) -> None:
        only = self.world.want(cause="request")
        outcome(only)
        only.cancel()
        answer = outcome(self.world.want(cause="navigation"))
        self.world.let_pass(1.5)
        self.assertEqual(answer, [self.world.route()])
        self.assertEqual(self.world.asked("start"), 1)
        self.assertEqual(self.world.events(), [("wake", "request")])

    def test_one_who_leaves_while_others_are_let_go_is_passed_over(self) -> None:
        first, second = self.world.want(), self.world.want()
        gone = outcome(second)
        first.addCallback(lambda _: second.cancel())
        self.world.let_pass(1.5)
        self.assertIsInstance(gone[0], CancelledError)

    def test_stopping_answers_who_waits(self) -> None:
        answer = outcome(self.world.want())
        run(self.world.waker.stop())
        self.assertIsInstance(answer[0], Unavailable)

    def test_an_unforeseen_failure_answers_and_is_logged(self) -> None:
        self.world.provider_twin.fail("start", ArithmeticError("a bug"))  # type: ignore[arg-type]
        answer = outcome(self.world.want())
        self.world.let_pass(1.5)
        self.assertEqual(answer[0].reason, "wake")
        self.assertEqual(len(self.flushLoggedErrors(ArithmeticError)), 1)
        again = outcome(self.world.want())
        self.world.let_pass(1.5)
        self.assertEqual(again, [self.world.route()])

    def test_a_provider_that_never_answers_ends_the_attempt(self) -> None:
        self.world.provider_twin.delays["start"] = 1e6
        answer = outcome(self.world.want())
        self.world.let_pass(60.0 + OVERTIME - 1, step=1.0)
        self.assertEqual(answer, [])
        self.world.let_pass(2.0, step=1.0)
        self.assertEqual(answer[0].reason, "provider-silent")
        self.world.provider_twin.delays["start"] = 0.0
        again = outcome(self.world.want())
        self.world.let_pass(1.0)
        self.assertEqual(again, [self.world.route()])


class WhoMayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def refused(self, state: UserState, kind: type[Exception]) -> None:
        self.world.put_user(User(ALICE, "alice@example.org", state))
        [error] = outcome(self.world.want())
        self.assertIsInstance(error, kind)
        self.assertEqual(self.world.provider_twin.calls, [])
        self.assertIsNone(run(self.world.store.machine(ALICE))[0])

    def test_a_blocked_user_never_reaches_the_provider(self) -> None:
        self.refused(UserState.BLOCKED, Blocked)

    def test_a_deleted_user_never_reaches_the_provider(self) -> None:
        self.refused(UserState.DELETED, Gone)

    def test_blocking_a_user_who_is_here_puts_the_machine_away(self) -> None:
        self.world.awake()
        self.world.put_user(User(ALICE, "alice@example.org", UserState.BLOCKED))
        self.world.turn()
        self.assertIsNone(self.world.route().backend)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)
        self.assertEqual(self.world.events()[-1], ("suspend", "blocked"))
        self.assertIsInstance(outcome(self.world.want())[0], Blocked)

    def test_a_blocked_users_machine_is_not_adopted_but_put_away(self) -> None:
        self.world.awake()
        other = World(owner="router:2", within=self.world)
        self.world.store._users[ALICE] = User(ALICE, "", UserState.BLOCKED)
        run(other.waker.adopt(ALICE))
        self.assertIsNone(other.route().backend)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_a_block_that_comes_during_the_wake_is_heeded(self) -> None:
        def block(name: str, when: str) -> None:
            if name == "change" and self.world.route().phase == "awake":
                self.world.put_user(User(ALICE, "alice@example.org", UserState.BLOCKED))

        self.world.directory.step = block  # type: ignore[assignment]
        self.world.want()
        self.world.let_pass(0.2)
        self.assertIsNone(self.world.route().backend)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_an_unblocked_user_is_welcome_again(self) -> None:
        self.world.put_user(User(ALICE, "a", UserState.BLOCKED))
        outcome(self.world.want())
        self.world.put_user(User(ALICE, "a"))
        self.world.awake()


class OperatorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def test_waking_waits_until_it_is_ready(self) -> None:
        self.world.provider_twin.delays["start"] = 1.0
        run(self.world.store.admit(ALICE, "alice@example.org"))
        done = run(self.world.waker.wake(ALICE, "operator"))
        self.world.let_pass(0.9)
        self.assertEqual(done, [])
        self.world.let_pass(0.3)
        self.assertEqual(done, [None])
        self.assertEqual(self.world.events(), [("wake", "operator")])

    def test_suspending_waits_until_it_sleeps(self) -> None:
        self.world.awake()
        done = run(self.world.waker.suspend(ALICE, "operator"))
        self.assertEqual(done, [])
        self.world.let_pass(0.5)
        self.assertEqual(done, [None])
        self.assertEqual(self.world.row().suspend_cause, "operator")

    def test_suspending_what_sleeps_or_never_was_is_done_already(self) -> None:
        self.assertEqual(run(self.world.waker.suspend(BOB, "operator")), [None])
        self.world.asleep()
        self.assertEqual(run(self.world.waker.suspend(ALICE, "operator")), [None])

    def test_suspending_what_just_wakes_waits_for_it(self) -> None:
        self.world.provider_twin.delays["start"] = 1.0
        self.world.want()
        done = run(self.world.waker.suspend(ALICE, "operator"))
        self.world.let_pass(2.0)
        self.assertEqual(done, [None])
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_a_machine_that_runs_unknown_to_this_router_is_suspended_too(self) -> None:
        self.world.awake()
        other = World(owner="router:2", within=self.world)
        done = run(other.waker.suspend(ALICE, "operator"))
        other.let_pass(0.5)
        self.assertEqual(done, [None])
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_one_that_is_in_use_is_not_suspended(self) -> None:
        self.world.awake()
        self.world.place().mute = True
        self.world.ask()
        done = run(self.world.waker.suspend(ALICE, "operator"))
        self.world.let_pass(0.3)
        self.assertEqual(done[0].reason, "in-use")
        self.assertEqual(self.world.real(), MachineState.RUNNING)

    def test_the_directory_being_down_is_said_so(self) -> None:
        self.world.store.lose()
        [error] = run(self.world.waker.suspend(ALICE, "operator"))
        self.assertEqual(error.reason, "directory")
