"""How long to wait with a restart, and when silence is a hang."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from matrix.router.workers.policy import (
    LONGEST_DELAY,
    QUIET_CHECKS,
    SILENCE_CHECKS,
    START_CHECKS,
    STEADY,
    Patience,
)


class DelayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patience = Patience()

    def delays(self, *lives: float) -> list[float]:
        return [self.patience.ended(lived) for lived in lives]

    def test_the_first_restart_is_at_once(self) -> None:
        self.assertEqual(self.delays(3.0), [0.0])

    def test_further_ones_wait_longer_each_time(self) -> None:
        self.assertEqual(self.delays(*[1.0] * 6), [0.0, 0.5, 1.0, 2.0, 4.0, 8.0])

    def test_up_to_a_limit(self) -> None:
        self.assertEqual(self.delays(*[1.0] * 100)[-1], LONGEST_DELAY)

    def test_who_lived_for_long_did_not_die_of_the_start(self) -> None:
        self.delays(1.0, 1.0, 1.0)
        self.assertEqual(self.delays(STEADY, 1.0), [0.0, 0.5])


class SilenceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patience = Patience()
        self.patience.started()

    def looks(self, count: int) -> list[bool]:
        return [self.patience.looked() for _ in range(count)]

    def test_silence_is_a_hang_after_a_while(self) -> None:
        self.patience.ready()
        self.assertEqual(set(self.looks(SILENCE_CHECKS)), {False})
        self.assertTrue(self.patience.looked())

    def test_a_sign_of_life_begins_it_anew(self) -> None:
        self.patience.ready()
        self.looks(SILENCE_CHECKS)
        self.patience.heard()
        self.assertEqual(set(self.looks(SILENCE_CHECKS)), {False})

    def test_a_start_may_take_longer(self) -> None:
        self.assertEqual(set(self.looks(START_CHECKS)), {False})
        self.assertTrue(self.patience.looked())

    def test_others_stand_in_long_before(self) -> None:
        self.patience.ready()
        self.looks(QUIET_CHECKS)
        self.assertFalse(self.patience.quiet)
        self.patience.looked()
        self.assertTrue(self.patience.quiet)
        self.patience.heard()
        self.assertFalse(self.patience.quiet)
