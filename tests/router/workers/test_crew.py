"""The supervisor's policy, over workers that do what a test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.metrics import Registry, series
from matrix.router.workers.channel import Message
from matrix.router.workers.crew import ANSWER_SECONDS, DUMP_SECONDS, STOP_SECONDS, Crew
from matrix.router.workers.policy import QUIET_CHECKS, SILENCE_CHECKS
from tests.router.world import outcome


class Hand:
    """A worker process in memory."""

    def __init__(
        self, number: int, heard: Callable[[Message], None], ended: Callable[[int], None]
    ) -> None:
        self.number = number
        self.pid = 1000 + number
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.dumped = False
        self.killed = False
        self.obeys = True
        self.counted = Registry()
        self._heard = heard
        self._ended = ended

    def send(self, kind: str, **fields: object) -> None:
        self.sent.append((kind, fields))
        if not self.obeys:
            return
        if kind == "measure":
            self.say("measures", snapshot=self.counted.snapshot())
        elif kind == "stop":
            self.end(0)

    def told(self, kind: str) -> list[dict[str, Any]]:
        """What it was sent of one kind."""
        return [fields for sent, fields in self.sent if sent == kind]

    def say(self, kind: str, **fields: object) -> None:
        self._heard({"kind": kind, **fields})

    def end(self, status: int = -9) -> None:
        self._ended(status)

    def dump(self) -> None:
        self.dumped = True

    def kill(self) -> None:
        self.killed = True
        self.end(-9)


class CrewTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.hands: list[Hand] = []
        self.broken: OSError | None = None
        self.registry = Registry()
        self.healed = 0
        self.crew = Crew(self.clock, self.launch, 3, self.registry, self.heal)

    def launch(
        self, number: int, heard: Callable[[Message], None], ended: Callable[[int], None]
    ) -> Hand:
        if self.broken is not None:
            raise self.broken
        self.hands.append(Hand(number, heard, ended))
        return self.hands[-1]

    def heal(self) -> None:
        self.healed += 1

    def start(self) -> list[Any]:
        return outcome(Deferred.fromCoroutine(self.crew.start()))

    def up(self) -> list[Hand]:
        """All of them, serving."""
        started = self.start()
        for hand in self.hands:
            hand.say("ready")
        self.assertEqual(started, [None])
        return list(self.hands)

    def let_pass(self, seconds: float, *alive: Hand) -> None:
        """Seconds pass, in which some give signs of life."""
        for _ in range(round(seconds)):
            for hand in alive:
                hand.say("alive")
            self.clock.advance(1.0)

    def number(self, state: str) -> float:
        return self.registry.gauge(series.WORKERS, state).current()

    def restarts(self, reason: str) -> float:
        return self.registry.counter(series.WORKER_RESTARTS, reason).value


class StartTests(CrewTestCase):
    def test_it_has_started_once_all_serve(self) -> None:
        started = self.start()
        self.assertEqual([hand.number for hand in self.hands], [1, 2, 3])
        for hand in self.hands[:2]:
            hand.say("ready")
        self.assertEqual((started, self.number("up"), self.number("down")), ([], 2, 1))
        self.hands[2].say("ready")
        self.assertEqual((started, self.number("up"), self.number("down")), ([None], 3, 0))

    def test_a_worker_that_may_not_start_ends_it_with_its_reason(self) -> None:
        started = self.start()
        self.hands[0].say("ready")
        self.hands[1].say("refused", text="MATRIX_ACCESS_LOG: cannot open /nowhere")
        self.hands[1].end(1)
        self.assertIsInstance(started[0], ConfigurationError)
        self.assertEqual(str(started[0]), "worker 2: MATRIX_ACCESS_LOG: cannot open /nowhere")
        self.hands[2].end(1)
        self.assertEqual(len(self.hands), 3, "nobody is started again")

    def test_one_that_dies_silently_ends_it_too(self) -> None:
        started = self.start()
        self.hands[2].end(-11)
        self.assertIn("worker 3: it ended by signal 11 while it started", str(started[0]))

    def test_a_process_that_cannot_be_made_is_tried_again(self) -> None:
        self.up()[0].end()
        self.broken = OSError(11, "no more processes")
        self.clock.advance(0.0)
        self.broken = None
        self.clock.advance(0.5)
        self.assertEqual(len(self.hands), 4)


class RestartTests(CrewTestCase):
    def test_one_that_died_is_replaced_at_once(self) -> None:
        self.up()[1].end()
        self.assertEqual(self.number("up"), 2)
        self.clock.advance(0.0)
        self.assertEqual(self.hands[-1].number, 2)
        self.hands[-1].say("ready")
        self.assertEqual((self.number("up"), self.restarts("died")), (3, 1))

    def test_machines_that_it_had_in_hand_are_seen_to(self) -> None:
        self.up()[1].end()
        self.assertEqual(self.healed, 1)
        self.clock.advance(0.0)
        self.hands[-1].end(1)
        self.assertEqual(self.healed, 1, "that one had none yet")

    def test_one_that_dies_again_and_again_is_not_replaced_all_the_time(self) -> None:
        one, two, three = self.up()
        two.end()
        ended = 3
        for _ in range(60):
            self.let_pass(1.0, one, three)
            if len(self.hands) > ended:
                ended = len(self.hands)
                self.hands[-1].end(1)
        self.assertEqual({hand.number for hand in self.hands[3:]}, {2})
        self.assertLess(len(self.hands[3:]), 10)

    def test_others_stand_in_until_it_is_back(self) -> None:
        one, two, three = self.up()
        two.end()
        for hand in (one, three):
            self.assertEqual(hand.told("stand in")[-1], {"numbers": [2]})
        self.clock.advance(0.0)
        self.hands[-1].say("ready")
        for hand in (one, three, self.hands[-1]):
            self.assertEqual(hand.told("stand in")[-1], {"numbers": []})

    def test_each_is_told_of_the_others_only(self) -> None:
        one, two, three = self.up()
        one.end()
        two.end()
        self.assertEqual(three.told("stand in")[-1], {"numbers": [1, 2]})
        self.clock.advance(0.0)
        self.hands[3].say("ready")
        self.assertEqual(self.hands[3].told("stand in")[-1], {"numbers": [2]})

    def test_the_report_tells_how_they_are(self) -> None:
        self.up()[1].end()
        self.let_pass(5.0)
        report = self.crew.report()
        self.assertEqual([one["up"] for one in report], [True, False, True])
        self.assertEqual([one["restarts"] for one in report], [0, 1, 0])
        self.assertEqual((report[0]["pid"], report[0]["uptime_s"]), (1001, 5.0))


class HangTests(CrewTestCase):
    def test_one_that_is_silent_for_long_is_replaced(self) -> None:
        one, two, three = self.up()
        self.let_pass(SILENCE_CHECKS + 1, one, three)
        self.assertEqual((two.dumped, two.killed, self.number("up")), (True, False, 2))
        self.clock.advance(DUMP_SECONDS)
        self.assertTrue(two.killed)
        self.assertEqual((one.killed, three.killed), (False, False))
        self.clock.advance(0.0)
        self.assertEqual(self.hands[-1].number, 2)
        self.assertEqual((self.restarts("hung"), self.restarts("died")), (1, 0))

    def test_others_stand_in_soon(self) -> None:
        one, two, three = self.up()
        self.let_pass(QUIET_CHECKS + 1, one, three)
        self.assertEqual(one.told("stand in")[-1], {"numbers": [2]})
        self.assertFalse(two.killed)
        self.let_pass(1.0, one, two, three)
        self.assertEqual(one.told("stand in")[-1], {"numbers": []})

    def test_a_supervisor_that_was_held_up_itself_blames_nobody(self) -> None:
        hands = self.up()
        self.clock.advance(10 * SILENCE_CHECKS)
        self.assertEqual([hand.dumped for hand in hands], [False] * 3)

    def test_one_that_dies_of_itself_meanwhile_is_not_killed_twice(self) -> None:
        one, two, three = self.up()
        self.let_pass(SILENCE_CHECKS + 1, one, three)
        two.end(-11)
        self.clock.advance(0.0)
        self.clock.advance(DUMP_SECONDS)
        self.assertFalse(two.killed)
        self.assertFalse(self.hands[-1].killed)


class MeasureTests(CrewTestCase):
    def requests(self) -> float:
        [merged] = outcome(Deferred.fromCoroutine(self.crew.measures()))
        name = "matrix_requests_total"
        return sum(merged._families["matrix_requests"].samples[key] for key in (
            (name, (("kind", "own"), ("status", "2xx"))),
        ))  # fmt: skip

    def count(self, hand: Hand, number: int) -> None:
        hand.counted.counter(series.REQUESTS, "own", "2xx").value += number

    def test_all_are_asked_and_added_up(self) -> None:
        for hand in self.up():
            self.count(hand, hand.number)
        self.assertEqual(self.requests(), 6)

    def test_no_count_goes_back_when_one_dies(self) -> None:
        hands = self.up()
        for hand in hands:
            self.count(hand, 10)
        self.let_pass(6.0, *hands)
        hands[1].end()
        self.assertEqual(self.requests(), 30)
        self.clock.advance(0.0)
        self.hands[-1].say("ready")
        self.count(self.hands[-1], 1)
        self.assertEqual(self.requests(), 31)

    def test_what_one_says_at_its_end_counts(self) -> None:
        one, *_ = self.up()
        self.count(one, 7)
        one.say("measures", snapshot=one.counted.snapshot())
        one.end(0)
        self.assertEqual(self.requests(), 7)

    def test_one_that_is_late_is_not_waited_for(self) -> None:
        one, two, three = self.up()
        for hand in (one, two, three):
            self.count(hand, 1)
        self.assertEqual(self.requests(), 3)
        two.obeys = False
        self.count(one, 1)
        asked = outcome(Deferred.fromCoroutine(self.crew.measures()))
        self.assertEqual(asked, [])
        self.clock.advance(ANSWER_SECONDS)
        self.assertEqual(len(asked), 1)
        two.obeys = True
        self.assertEqual(self.requests(), 4)

    def test_one_that_dies_is_not_waited_for_either(self) -> None:
        _, two, _ = self.up()
        two.obeys = False
        asked = outcome(Deferred.fromCoroutine(self.crew.measures()))
        two.end()
        self.assertEqual(len(asked), 1)


class StopTests(CrewTestCase):
    def stop(self) -> list[Any]:
        return outcome(Deferred.fromCoroutine(self.crew.stop()))

    def test_all_are_asked_to_end_and_waited_for(self) -> None:
        hands = self.up()
        hands[1].obeys = False
        stopped = self.stop()
        self.clock.pump([0.1] * 10)
        self.assertEqual(stopped, [])
        hands[1].end(0)
        self.clock.pump([0.1] * 2)
        self.assertEqual(stopped, [None])
        self.let_pass(60.0)
        self.assertEqual(len(self.hands), 3, "nobody is started again")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_does_not_end_is_killed(self) -> None:
        hands = self.up()
        hands[1].obeys = False
        stopped = self.stop()
        self.clock.pump([0.1] * round(STOP_SECONDS * 10 + 2))
        self.assertEqual((hands[1].killed, stopped), (True, [None]))

    def test_in_the_middle_of_the_start(self) -> None:
        self.start()
        stopped = self.stop()
        self.clock.pump([0.1] * 2)
        self.assertEqual(stopped, [None])

    def test_while_one_waits_to_be_started_again(self) -> None:
        self.up()[0].end()
        self.clock.advance(0.0)
        self.hands[-1].end(1)
        stopped = self.stop()
        self.let_pass(60.0)
        self.assertEqual((stopped, len(self.hands)), ([None], 4))

    def test_before_the_start(self) -> None:
        self.assertEqual(self.stop(), [None])

    def test_a_new_access_log_is_everybodys(self) -> None:
        hands = self.up()
        self.crew.reopen()
        self.assertEqual([len(hand.told("reopen")) for hand in hands], [1, 1, 1])
