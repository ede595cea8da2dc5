"""Two routers, whatever happens in whatever order: everybody is answered, by one machine."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.model import MachineState
from tests.router.test_chaos import OPERATIONS, PAUSES, Chaos
from tests.router.world import World, run

STEPS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from((*OPERATIONS, "touch")), st.sampled_from(PAUSES)),
    max_size=25,
)


class Together(SynchronousTestCase):
    @settings(max_examples=100, deadline=None)
    @given(STEPS)
    def test_everybody_is_answered_and_the_next_request_served_at_both(
        self, steps: list[tuple[int, str, float]]
    ) -> None:
        one = Chaos()
        two = Chaos(World(owner="router:2", within=one.world))
        both = (one, two)
        for which, what, pause in steps:
            if what == "touch":
                run(both[which].world.idle.touch())
            else:
                both[which].do(what)
            if pause:
                one.world.let_pass(pause, step=min(pause, 0.02))
            else:
                one.world.turn()
        for chaos in both:
            chaos.calm()
        for chaos in both:
            chaos.everybody_is_answered(self)
        self.assertEqual(one.world.fleet_twin.made, 1)
        self.sleeps(both)
        self.assertEqual(self.flushLoggedErrors(), [])

    def sleeps(self, both: tuple[Chaos, Chaos]) -> None:
        """Left alone, it falls asleep, once and for both."""
        for _ in range(30):
            for chaos in both:
                run(chaos.world.idle.touch())
                run(chaos.world.idle.sweep())
            both[0].world.let_pass(1.0, step=0.05)
        for chaos in both:
            self.assertEqual(chaos.world.real(), MachineState.SUSPENDED)
            self.assertEqual(chaos.world.row().state, MachineState.SUSPENDED)
            self.assertEqual(chaos.world.route().phase, "resting")
            self.assertIsNone(chaos.world.route().backend)
