"""C{twistd matrix-fly}: what its command line says, and what it refuses."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from matrix.testing.fly.tap import Options, makeService
from matrix.testing.scratch import scratch


class TapTests(SynchronousTestCase):
    def options(self, *words: str) -> Options:
        options = Options()
        options.parseOptions([f"--state-dir={scratch(self)}", *words])
        return options

    def test_settings_are_those_that_were_asked_for(self) -> None:
        words = ("--set", "resume=0.1", "-s", "rate_limits=off", "--seed=7", "--token=x", "-o", "y")
        service = makeService(self.options(*words), reactor)
        self.assertEqual(service.name, "matrix-fly")
        options = service._make.keywords
        self.assertEqual(options["tuning"].shown()["resume"], "0.1")
        self.assertEqual(options["tuning"].switches.rate_limits, "off")
        self.assertEqual((options["seed"], options["tokens"]), (7, {"x": "y"}))
        self.successResultOf(service.stopService())

    def test_what_cannot_be(self) -> None:
        for word, text in (
            ("--listen=0.0.0.0:1", "on 127.0.0.1:PORT only"), ("--listen=x", "HOST:PORT"),
            ("--program=x {y}", "{y}"), ("--network=10.0.0.0/8", "no part of"),
            ("--set=a=b", "there is no 'a'"),
        ):  # fmt: skip
            error = self.assertRaises(SystemExit, makeService, self.options(word), reactor)
            self.assertIn("twistd matrix-fly: ", str(error))
            self.assertIn(text, str(error))
        self.assertRaises(UsageError, self.options, "--set=a")
