"""A daemon's start and stop, without a process; those that fail are in tests/integration."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.net import Daemon


class FakeReactor:
    """Notes that it was told to stop, and when it was not running yet."""

    def __init__(self) -> None:
        self.running = False
        self.stopped = False
        self.waiting: list[Callable[[], object]] = []
        self.triggers: list[tuple[object, ...]] = []

    def callWhenRunning(self, call: Callable[[], object]) -> None:
        if self.running:
            call()
        else:
            self.waiting.append(call)

    def run(self) -> None:
        self.running = True
        for call in self.waiting:
            call()

    def stop(self) -> None:
        assert self.running, "ReactorNotRunning"
        self.stopped = True

    def addSystemEventTrigger(self, *trigger: object) -> None:
        self.triggers.append(trigger)


class Example(Daemon):
    def __init__(self, reactor: FakeReactor) -> None:
        super().__init__(reactor)
        self.starting: Deferred[None] = Deferred(lambda _: self.notes.append("cancelled"))
        self.notes: list[str] = []

    async def start(self) -> None:
        self.notes.append("start")
        await self.starting
        self.notes.append("started")

    async def stop(self) -> None:
        self.notes.append("stop")


class DaemonTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.daemon = Example(self.reactor)

    def test_starts_and_stops(self) -> None:
        self.daemon.startService()
        self.assertTrue(self.daemon.running)
        self.daemon.starting.callback(None)
        self.successResultOf(self.daemon.stopService())
        self.assertEqual(self.daemon.notes, ["start", "started", "stop"])
        self.assertEqual(self.reactor.triggers, [])

    def test_stopped_while_it_starts(self) -> None:
        self.daemon.startService()
        self.successResultOf(self.daemon.stopService())
        self.assertEqual(self.daemon.notes, ["start", "cancelled", "stop"])
        self.reactor.run()
        self.assertFalse(self.reactor.stopped)

    def test_stopped_before_it_was_started(self) -> None:
        self.successResultOf(self.daemon.stopService())
        self.assertEqual(self.daemon.notes, ["stop"])

    def test_start_that_fails_before_the_reactor_runs(self) -> None:
        self.daemon.starting.errback(ConfigurationError("cannot listen"))
        self.daemon.startService()
        self.assertFalse(self.reactor.stopped)
        self.reactor.run()
        self.assertTrue(self.reactor.stopped)
        self.assertEqual(self.reactor.triggers[0][:2], ("after", "shutdown"))
        self.assertEqual(self.reactor.triggers[0][-1], "cannot listen")

    def test_start_that_fails_later(self) -> None:
        self.daemon.startService()
        self.reactor.run()
        self.daemon.starting.errback(ZeroDivisionError("by zero"))
        self.assertTrue(self.reactor.stopped)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.reactor.triggers[0][-1], "could not start: by zero")

    def test_says_what_it_needs(self) -> None:
        plain = Daemon(self.reactor)
        for method in (plain.start, plain.stop):
            self.failureResultOf(Deferred.fromCoroutine(method()), NotImplementedError)
