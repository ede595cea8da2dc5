"""The command line: what is missing or wrong ends in one line, and the token leaves no trace."""

import os
import socket
from pathlib import Path
from unittest.mock import patch

from twisted.internet import reactor
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.tap import Options, makeService
from matrix.testing.scratch import scratch

SECRET = "s3cret-of-this-machine"


class OptionsTests(SynchronousTestCase):
    def test_data_must_be_given(self) -> None:
        error = self.assertRaises(UsageError, Options().parseOptions, [])
        self.assertIn("--data", str(error))

    def test_unknown_options_are_refused(self) -> None:
        self.assertRaises(UsageError, Options().parseOptions, ["--data", "x", "--port", "1"])

    def test_loopback_by_default(self) -> None:
        options = Options()
        options.parseOptions(["--data", "x"])
        self.assertEqual(options["listen"], "tcp:127.0.0.1:8000")


class MakeServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = scratch(self)
        self.socket = self.top / "socket"

    def make(
        self, token: str | None = SECRET, listen: str = "", data: Path | None = None
    ) -> object:
        options = Options()
        listen = listen or f"unix:{self.socket}"
        options.parseOptions(["--listen", listen, "--data", str(data or self.top / "data")])
        environment = {} if token is None else {"MATRIX_MACHINE_TOKEN": token}
        with patch.dict(os.environ, environment):
            try:
                return makeService(options, reactor)
            finally:
                self.assertNotIn("MATRIX_MACHINE_TOKEN", os.environ)

    def refused(self, *args: object, **options: object) -> str:
        error = self.assertRaises(SystemExit, self.make, *args, **options)
        self.assertNotIn("\n", str(error))
        self.assertTrue(str(error).startswith("twistd matrix-daemon: "))
        return str(error)

    def test_token_must_be_set(self) -> None:
        for token in (None, ""):
            self.assertIn("MATRIX_MACHINE_TOKEN", self.refused(token))

    def test_address_must_be_one(self) -> None:
        self.assertIn("no address", self.refused(listen="unix:relative"))

    def test_address_in_use(self) -> None:
        other = socket.socket()
        self.addCleanup(other.close)
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = f"tcp:127.0.0.1:{other.getsockname()[1]}"
        self.assertIn("another program listens", self.refused(listen=listen))

    def test_data_directory_that_is_none(self) -> None:
        place = self.top / "file"
        place.touch()
        self.assertIn(str(place), self.refused(data=place))
