"""A daemon starts whole or not at all: real processes that cannot start."""

import signal
import subprocess
import sys
import textwrap
import time

from twisted.trial.unittest import SynchronousTestCase

PROGRAM = textwrap.dedent(
    """
    import sys
    import uvloop
    from twisted.internet import asyncioreactor
    asyncioreactor.install(uvloop.new_event_loop())
    from twisted.internet import reactor
    from twisted.internet.task import deferLater
    from twisted.logger import globalLogBeginner
    from matrix.errors import ConfigurationError
    from matrix.net import Daemon

    globalLogBeginner.beginLoggingTo([lambda event: None], redirectStandardIO=False)

    class Example(Daemon):
        async def start(self):
            how = sys.argv[1]
            if "later" in how:
                await deferLater(reactor, 0.05)
            if "refused" in how:
                raise ConfigurationError("cannot listen on tcp:x:1: taken")
            if "crash" in how:
                raise ZeroDivisionError("by zero")
            print("started", flush=True)
            if "slowly" in how:
                await deferLater(reactor, 60)

        async def stop(self):
            print("stopped", flush=True)

    daemon = Example(reactor)
    daemon.startService()
    reactor.addSystemEventTrigger("before", "shutdown", daemon.stopService)
    reactor.run()
    print("reactor ended", flush=True)
    """
)


class StartTests(SynchronousTestCase):
    def start(self, how: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_one_line_and_status_1(self) -> None:
        """Whether it fails before or after the reactor runs."""
        for how in ("refused", "refused later"):
            out, err = (process := self.start(how)).communicate(timeout=30)
            self.assertEqual(err, "matrix: cannot listen on tcp:x:1: taken\n", how)
            self.assertEqual(process.returncode, 1, how)
            self.assertEqual(out, "stopped\nreactor ended\n", "what was started is put away")

    def test_a_fault_of_ours_too(self) -> None:
        for how in ("crash", "crash later"):
            _, err = (process := self.start(how)).communicate(timeout=30)
            self.assertEqual(err, "matrix: could not start: by zero\n", how)
            self.assertEqual(process.returncode, 1, how)

    def test_ends_properly_when_told_to(self) -> None:
        for how in ("well", "slowly"):
            process = self.start(how)
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), "started\n")
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
            self.assertEqual((out, err, process.returncode), ("stopped\nreactor ended\n", "", 0))
