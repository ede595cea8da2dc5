"""Tests for the table of a machine's life, and that its picture is the present one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.machines.lifecycle import IllegalTransition, Life, LifecycleEvent, next_state
from matrix.model import MachineState

S, E = MachineState, LifecycleEvent


def follow(state: MachineState, *events: LifecycleEvent) -> list[MachineState]:
    """The states that a series of events leads through."""
    states = []
    for event in events:
        state = next_state(state, event)
        states.append(state)
    return states


def followers(state: MachineState) -> dict[LifecycleEvent, MachineState]:
    """What each event that can happen leads to."""
    found = {}
    for event in LifecycleEvent:
        try:
            found[event] = next_state(state, event)
        except IllegalTransition:
            continue
    return found


def reachable(state: MachineState) -> set[MachineState]:
    """Every state that can follow, at once or later."""
    seen = {state}
    todo = [state]
    while todo:
        for after in set(followers(todo.pop()).values()) - seen:
            seen.add(after)
            todo.append(after)
    return seen


class LifeTests(SynchronousTestCase):
    """The courses that a life takes."""

    def test_every_event_is_an_input(self) -> None:
        inputs = {name for name in vars(Life) if not name.startswith("_")}
        self.assertEqual({event.value for event in E}, inputs)

    def test_from_the_first_request_to_sleep_and_back(self) -> None:
        course = follow(
            S.PROVISIONING, E.WAKE, E.WOKE, E.IDLE, E.DRAINED, E.SUSPENDED, E.WAKE, E.WOKE
        )
        self.assertEqual(
            course,
            [
                S.STARTING,
                S.RUNNING,
                S.DRAINING,
                S.SUSPENDING,
                S.SUSPENDED,
                S.STARTING,
                S.RUNNING,
            ],
        )

    def test_a_request_before_the_freeze_keeps_it_awake(self) -> None:
        self.assertEqual(next_state(S.DRAINING, E.KEEP), S.RUNNING)

    def test_what_could_not_be_frozen_stays_awake(self) -> None:
        self.assertEqual(next_state(S.SUSPENDING, E.KEEP), S.RUNNING)

    def test_what_a_dead_router_left_half_done_is_woken(self) -> None:
        for state in (S.STARTING, S.DRAINING, S.SUSPENDING, S.RUNNING):
            self.assertEqual(follow(state, E.WAKE, E.WOKE), [S.STARTING, S.RUNNING])

    def test_a_death_is_a_stop_that_the_next_request_mends(self) -> None:
        for state in (S.RUNNING, S.DRAINING, S.SUSPENDING, S.SUSPENDED):
            self.assertEqual(
                follow(state, E.DIED, E.WAKE, E.WOKE), [S.STOPPED, S.STARTING, S.RUNNING]
            )

    def test_a_death_while_starting_is_a_failure_to_start(self) -> None:
        self.assertEqual(follow(S.STARTING, E.DIED, E.WAKE), [S.FAILED, S.STARTING])

    def test_what_is_lost_is_provisioned_anew(self) -> None:
        self.assertEqual(
            follow(S.RUNNING, E.GONE, E.WAKE, E.WAKE), [S.LOST, S.PROVISIONING, S.STARTING]
        )

    def test_what_the_provider_sees_wins_over_the_row(self) -> None:
        self.assertEqual(next_state(S.STOPPED, E.KEEP), S.RUNNING)
        self.assertEqual(next_state(S.RUNNING, E.FOUND_SUSPENDED), S.SUSPENDED)
        self.assertEqual(next_state(S.FAILED, E.DIED), S.STOPPED)

    def test_the_illegal_is_refused_by_name(self) -> None:
        with self.assertRaisesRegex(IllegalTransition, "is suspended cannot meet 'woke'") as caught:
            next_state(S.SUSPENDED, E.WOKE)
        self.assertEqual((caught.exception.state, caught.exception.event), (S.SUSPENDED, E.WOKE))

    def test_nothing_comes_after_the_end(self) -> None:
        self.assertEqual(followers(S.DESTROYED), {E.DESTROYED: S.DESTROYED})
        self.assertEqual(
            followers(S.DESTROYING), {E.DESTROY: S.DESTROYING, E.DESTROYED: S.DESTROYED}
        )

    def test_every_state_can_be_entered(self) -> None:
        self.assertEqual(reachable(S.PROVISIONING), set(S))

    @given(st.sampled_from([state for state in S if not state.startswith("destroy")]))
    def test_from_everywhere_a_machine_can_run_again_and_be_destroyed(
        self, state: MachineState
    ) -> None:
        self.assertLessEqual({S.RUNNING, S.DESTROYED}, reachable(state))

    @given(st.sampled_from([state for state in S if not state.startswith("destroy")]))
    def test_a_wake_is_never_refused_and_leads_to_a_start(self, state: MachineState) -> None:
        once = next_state(state, E.WAKE)
        self.assertIn(once, (S.PROVISIONING, S.STARTING))
        self.assertEqual(follow(once, E.WAKE, E.WAKE), [S.STARTING, S.STARTING])

    @given(st.sampled_from([state for state in S if not state.startswith("destroy")]))
    def test_what_the_provider_sees_is_never_refused(self, state: MachineState) -> None:
        self.assertEqual(next_state(state, E.KEEP), S.RUNNING)
        self.assertEqual(next_state(state, E.FOUND_SUSPENDED), S.SUSPENDED)
        self.assertEqual(next_state(state, E.GONE), S.LOST)
        self.assertIn(next_state(state, E.DIED), (S.STOPPED, S.FAILED))

    @given(st.lists(st.sampled_from(list(E)), max_size=30))
    def test_no_course_leaves_the_table(self, events: list[LifecycleEvent]) -> None:
        state = S.PROVISIONING
        for event in events:
            state = followers(state).get(event, state)
            self.assertIsInstance(state, MachineState)
        self.assertIn(state, reachable(S.PROVISIONING))
