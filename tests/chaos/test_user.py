"""What a user in chaos holds against Matrix, and what not."""

from __future__ import annotations

from tests.chaos.test_tally import Case
from tests.chaos.user import Talk


class TalkTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.talk = Talk()

    def say_after(self, *pauses: float) -> None:
        for pause in pauses:
            self.now += pause
            self.talk.heard()

    def test_nothing_is_said(self) -> None:
        self.now += 6.0
        self.assertEqual(self.talk.silent, 6.0)

    def test_the_silence_ended_as_the_suspend_was_decided(self) -> None:
        self.say_after(1.0, 7.5, 0.25, 0.25)
        self.now += 0.25
        self.assertEqual(self.talk.silent, 7.5)

    def test_it_ended_long_before_that(self) -> None:
        self.say_after(1.0, 7.5, 0.5, 0.25)
        self.now += 0.5
        self.assertEqual(self.talk.silent, 0.5)
        self.assertEqual(str(self.talk), "1.00, 7.50, 0.50, 0.25, 0.50")
