"""The listening connection's life against a clock: probes, losses, ways back."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import DirectoryUnavailable
from matrix.directory._listener import BACKOFF_SECONDS, Listener

WHO = "6f1c1d4e-6c0b-4a55-9a0e-0f8f6f2f9d11"


class FakeConnection:
    """Answers at once, or not at all while C{silent}."""

    def __init__(self, heard: Callable[[str, str], None], lost: Callable[[], None]) -> None:
        self.heard = heard
        self.lost = lost
        self.alive = True
        self.silent = False
        self.said: list[str] = []

    def runQuery(self, statement: str) -> Deferred[object]:
        self.said.append(statement)
        return Deferred() if self.silent else succeed([(1,)])

    runOperation = runQuery

    def close(self) -> None:
        self.alive = False

    def end(self) -> None:
        """The server ends it in order."""
        self.close()
        self.lost()


class ListenerTests(SynchronousTestCase):
    """L{Listener}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.connections: list[FakeConnection] = []
        self.attempts: list[float] = []
        self.trouble: Exception | None = None
        self.told: list[str | None] = []
        self.other: list[str | None] = []
        channels = {"machine": self.told.append, "access": self.other.append}
        self.listener = Listener(self.connect, self.clock, channels)  # type: ignore[arg-type]

    def connect(
        self, heard: Callable[[str, str], None], lost: Callable[[], None]
    ) -> Deferred[object]:
        self.attempts.append(self.clock.seconds())
        if self.trouble is not None:
            return fail(self.trouble)
        self.connections.append(FakeConnection(heard, lost))
        return succeed(self.connections[-1])

    def start(self) -> FakeConnection:
        self.successResultOf(Deferred.fromCoroutine(self.listener.start()))
        return self.connections[-1]

    def run_for(self, seconds: float) -> None:
        """Let time pass, a tenth at a time."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)

    def test_it_listens_and_passes_on(self) -> None:
        connection = self.start()
        self.assertEqual(connection.said, ["LISTEN machine; LISTEN access"])
        connection.heard("machine", WHO)
        self.assertEqual((self.told, self.other), ([WHO], []))
        connection.heard("access", "anything")
        self.assertEqual((self.told, self.other), ([WHO], ["anything"]))
        self.assertIsNone(self.listener.stale_since)

    def test_the_first_connection_must_succeed(self) -> None:
        self.trouble = DirectoryUnavailable("refused")
        self.failureResultOf(Deferred.fromCoroutine(self.listener.start()), DirectoryUnavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_first_listen_without_an_answer_fails(self) -> None:
        self.patch(FakeConnection, "runOperation", lambda *_: Deferred())
        starting = Deferred.fromCoroutine(self.listener.start())
        self.run_for(6)
        self.failureResultOf(starting, DirectoryUnavailable)
        self.assertFalse(self.connections[0].alive)

    def test_a_quiet_server_is_asked_now_and_then(self) -> None:
        connection = self.start()
        self.run_for(61)
        self.assertEqual(connection.said.count("SELECT 1"), 12)
        self.assertTrue(connection.alive)
        self.assertEqual(self.told, [])

    def test_an_orderly_end_is_stale_from_that_moment(self) -> None:
        connection = self.start()
        self.run_for(7)
        self.trouble = DirectoryUnavailable("refused")
        connection.end()
        self.assertEqual(self.listener.stale_since, self.clock.seconds())
        self.assertEqual(self.told, [])
        self.trouble = None
        self.run_for(10)
        self.assertIsNone(self.listener.stale_since)
        self.assertEqual((self.told, self.other), ([None], [None]))
        self.connections[-1].heard("machine", WHO)
        self.assertEqual(self.told, [None, WHO])
        self.assertEqual(self.listener.losses, 1)

    def test_silence_is_stale_from_the_last_sign_of_life(self) -> None:
        connection = self.start()
        self.run_for(12)
        connection.silent = True
        self.trouble = DirectoryUnavailable("unreachable")
        self.run_for(15 - 12 + 10)
        self.assertFalse(connection.alive)
        stale_since = self.listener.stale_since
        assert stale_since is not None
        self.assertLess(abs(stale_since - 10), 0.3)  # it was asked after 5 and 10 s

    def test_silence_is_noticed_within_fifteen_seconds(self) -> None:
        connection = self.start()
        for quiet_for in range(0, 50, 7):
            with self.subTest(quiet_for=quiet_for):
                self.run_for(quiet_for / 10)
                self.trouble = DirectoryUnavailable("unreachable")
                connection.silent = True
                began = self.clock.seconds()
                while self.listener.stale_since is None:
                    self.run_for(0.1)
                self.assertLess(self.clock.seconds() - began, 15)
                self.trouble = None
                self.run_for(10)
                connection = self.connections[-1]

    def test_attempts_back_off_to_five_seconds_with_jitter(self) -> None:
        connection = self.start()
        self.trouble = DirectoryUnavailable("refused")
        connection.end()
        self.run_for(120)
        gaps = [b - a for a, b in zip(self.attempts[1:], self.attempts[2:], strict=False)]
        self.assertLess(gaps[0], 0.5)
        for gap in gaps[-10:]:
            self.assertGreaterEqual(gap, BACKOFF_SECONDS[1] / 2)
            self.assertLessEqual(gap, BACKOFF_SECONDS[1] + 0.2)
        self.assertGreater(len({round(gap, 1) for gap in gaps[-10:]}), 2)

    def test_an_unforeseen_error_is_logged_and_does_not_make_it_deaf(self) -> None:
        connection = self.start()
        self.trouble = ZeroDivisionError("a mistake of ours")
        connection.end()
        self.run_for(0.2)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        self.trouble = None
        self.run_for(1)
        self.assertEqual(self.told, [None])

    def test_stop_at_any_time_leaves_nothing(self) -> None:
        for moment in ("resting", "asking", "reconnecting"):
            with self.subTest(moment=moment):
                self.setUp()
                connection = self.start()
                if moment == "asking":
                    connection.silent = True
                    self.run_for(6)
                if moment == "reconnecting":
                    self.trouble = DirectoryUnavailable("refused")
                    connection.end()
                    self.run_for(3)
                self.listener.stop()
                self.listener.stop()
                self.assertFalse(connection.alive)
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_before_start(self) -> None:
        self.listener.stop()
        self.assertEqual(self.attempts, [])
