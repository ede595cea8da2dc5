"""What workers log is the supervisor's to write, level and source included."""

from __future__ import annotations

from io import StringIO

from twisted.logger import Logger, LogLevel, LogPublisher, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from matrix.router.workers.logs import Retelling, telling


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.output = StringIO()
        self.logger = Logger("matrix.router.wake", observer=LogPublisher(telling(self.output)))
        self.events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def retold(self) -> list[tuple[object, object, object]]:
        for line in self.output.getvalue().encode().splitlines():
            Retelling(2)(line)
        return [(one["log_level"], one["log_namespace"], one["text"]) for one in self.events]

    def test_an_event_is_told_as_the_supervisors_own(self) -> None:
        self.logger.warn("{user} stays {how}", user="alice", how="awake")
        self.assertEqual(
            self.retold(),
            [(LogLevel.warn, "worker 2 matrix.router.wake", "alice stays awake")],
        )

    def test_a_failure_with_its_trace_on_one_line(self) -> None:
        failure = Failure(ArithmeticError("a bug"))  # type: ignore[no-untyped-call]
        self.logger.failure("it failed", failure=failure)
        self.assertEqual(self.output.getvalue().count("\n"), 1)
        [(level, _, text)] = self.retold()
        self.assertEqual(level, LogLevel.critical)
        self.assertIn("ArithmeticError: a bug", str(text))

    def test_debugging_stays_where_it_is(self) -> None:
        self.logger.debug("too much")
        self.assertEqual(self.output.getvalue(), "")

    def test_last_words_of_an_interpreter(self) -> None:
        for line in (b"Fatal Python error: Aborted", b"\xff{", b'{"level": "loud"}', b"[]"):
            Retelling(1)(line)
        self.assertEqual({one["log_namespace"] for one in self.events}, {"worker 1"})
        self.assertEqual(self.events[0]["text"], "Fatal Python error: Aborted")

    def test_braces_in_a_text_are_only_braces(self) -> None:
        self.logger.info("{text}", text="{not a field}")
        self.assertEqual(self.retold()[0][2], "{not a field}")
