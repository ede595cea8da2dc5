"""C{twistd matrix} as a process: what cannot start ends soon, with one line that says why."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from matrix.net import LocalAuthority
from matrix.testing.running import LAUNCH

SOON = 30.0
"""Seconds within which a start that fails must have ended: a host that is many times too busy
takes most of them to import everything, and nothing is to be tried again."""

SECRETS = ("hidden-password", "d" * 40)


def closed_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


class FailingStartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="matrix-twistd-"))
        self.addCleanup(shutil.rmtree, self.home)
        _, cert, key = LocalAuthority(self.home / "tls").ensure()
        self.settings = {
            "DATABASE_URL": f"postgresql://matrix:{SECRETS[0]}@127.0.0.1:{closed_port()}/matrix",
            "MATRIX_ISSUER": f"http://127.0.0.1:{closed_port()}",
            "MATRIX_DAEMON_TOKEN": SECRETS[1],
            "MATRIX_TLS_CERT": str(cert),
            "MATRIX_TLS_KEY": str(key),
        }

    def twistd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run C{twistd -n matrix} to its end."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            **self.settings,
        }
        command = [sys.executable, "-P", "-c", LAUNCH, "--nodaemon", "--pidfile=", "matrix"]
        return subprocess.run(
            [*command, *arguments],
            env=environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ends(self, *arguments: str) -> str:
        """The one line that a start which cannot succeed ends with."""
        places = [] if "--listen" in arguments else ["--listen", "127.0.0.1:0"]
        began = time.monotonic()
        done = self.twistd(*places, "--internal", "127.0.0.1:0", *arguments)
        took = time.monotonic() - began
        self.assertNotEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertGreater(done.returncode, 0, "it was ended by a signal")
        self.assertLess(took, SOON)
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertNotIn("Traceback", done.stdout)
        for secret in SECRETS:
            self.assertNotIn(secret, done.stdout + done.stderr)
        return lines[0]

    def test_a_port_in_use(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            place = f"127.0.0.1:{taken.getsockname()[1]}"
            line = self.ends("--listen", place)
        self.assertIn(place, line)
        self.assertIn("another program listens there already", line)

    def test_a_bad_certificate(self) -> None:
        bad = self.home / "bad.pem"
        bad.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        self.settings["MATRIX_TLS_CERT"] = str(bad)
        line = self.ends()
        self.assertIn("MATRIX_TLS_CERT", line)
        self.assertIn(str(bad), line)

    def test_a_key_of_another_certificate(self) -> None:
        _, _, other = LocalAuthority(self.home / "other").ensure()
        self.settings["MATRIX_TLS_KEY"] = str(other)
        self.assertIn("MATRIX_TLS_KEY", self.ends())

    def test_an_unreachable_database(self) -> None:
        line = self.ends()
        self.assertIn("the database cannot be opened", line)
        self.assertIn("DATABASE_URL", line)

    def test_settings_that_are_missing(self) -> None:
        self.settings = {"DATABASE_URL": self.settings["DATABASE_URL"]}
        line = self.ends()
        for name in ("MATRIX_ISSUER", "MATRIX_DAEMON_TOKEN", "MATRIX_TLS_CERT"):
            self.assertIn(name, line)

    def test_a_public_address_in_embedded_mode(self) -> None:
        line = self.ends("--embedded", "--listen", "0.0.0.0:0")
        self.assertIn("MATRIX_LISTEN", line)
        self.assertIn("loopback", line)
        self.assertFalse((self.home / ".matrix").exists(), "nothing was made")

    def test_an_unknown_env_file(self) -> None:
        line = self.ends("--env-file", "nowhere.env")
        self.assertIn("--env-file nowhere.env", line)

    def test_another_reactor(self) -> None:
        launch = LAUNCH.replace("sys.exit", "sys.argv[1:1] = ['--reactor=epoll']; sys.exit")
        self.patch(sys.modules[__name__], "LAUNCH", launch)
        self.assertIn("--reactor=asyncio", self.ends())


class HelpTests(SynchronousTestCase):
    def test_it_explains_itself_without_starting_anything(self) -> None:
        done = subprocess.run(
            [sys.executable, "-P", "-c", LAUNCH, "matrix", "--help"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        for option in ("--env-file", "--listen", "--internal", "--embedded", "--idle"):
            self.assertIn(option, done.stdout)
