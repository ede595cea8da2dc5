"""The command line of the router: what it takes, and how it ends when it cannot start."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from unittest import mock

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from matrix.net import LocalAuthority
from matrix.router.engine import limits_from
from matrix.router.inside import url
from matrix.router.service import Router
from matrix.router.tap import Options, makeService
from matrix.router.workers.supervisor import Supervisor
from matrix.settings import load

SECRET = "hidden-password"


class OptionsTests(SynchronousTestCase):
    def parsed(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions([*arguments])
        return options

    def test_nothing_need_be_given(self) -> None:
        options = self.parsed()
        for name in ("env-file", "listen", "internal", "idle", "state-dir", "workers"):
            self.assertIsNone(options[name], name)
        self.assertFalse(options["embedded"])

    def test_all_of_them(self) -> None:
        options = self.parsed(
            *("--embedded", "--env-file", "env", "--listen", "a:1", "--internal", "b:2"),
            *("--idle", "4", "--state-dir", "here"),
        )
        given = [options[name] for name in ("env-file", "listen", "internal", "idle", "state-dir")]
        self.assertEqual(given, ["env", "a:1", "b:2", "4", "here"])
        self.assertTrue(options["embedded"])

    def test_short_forms(self) -> None:
        options = self.parsed("-e", "-l", "a:1", "-i", "b:2")
        self.assertEqual((options["embedded"], options["listen"]), (True, "a:1"))

    def test_anything_else_is_refused(self) -> None:
        for arguments in (["--port", "1"], ["extra"], ["--listen"]):
            with self.assertRaises(UsageError):
                self.parsed(*arguments)

    def test_every_option_is_explained(self) -> None:
        text = str(Options())
        for name in ("env-file", "embedded", "listen", "internal", "idle", "state-dir"):
            self.assertRegex(text, rf"--{name}=?\s+\w+")


class MakeServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(self.mktemp())
        self.top.mkdir(parents=True)
        _, self.cert, self.key = LocalAuthority(self.top / "tls").ensure()
        self.environment = {
            "DATABASE_URL": f"postgresql://matrix:{SECRET}@127.0.0.1:1/matrix",
            "MATRIX_ISSUER": "http://127.0.0.1:1",
            "MATRIX_DAEMON_TOKEN": "d" * 40,
            "MATRIX_TLS_CERT": str(self.cert),
            "MATRIX_TLS_KEY": str(self.key),
            "MATRIX_STATE_DIR": str(self.top / "state"),
        }

    def make(self, *arguments: str, on: object = reactor, **environment: str) -> object:
        options = Options()
        options.parseOptions(["--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0", *arguments])
        with mock.patch.dict(os.environ, {**self.environment, **environment}, clear=True):
            service = makeService(options, on)
        assert isinstance(service, Router | Supervisor)
        self.addCleanup(self.close, service)
        return service

    def close(self, service: Router | Supervisor) -> None:
        for listener in (*service._sockets[0], *service._sockets[1]):
            listener.close()
        if service._embedded is not None:
            os.close(service._embedded._lock)

    def refused(self, *arguments: str, on: object = reactor, **environment: str) -> str:
        with self.assertRaises(SystemExit) as caught:
            self.make(*arguments, on=on, **environment)
        text = str(caught.exception)
        self.assertTrue(text.startswith("twistd matrix: "), text)
        self.assertNotIn("\n", text)
        self.assertNotIn(SECRET, text)
        return text

    def test_sockets_are_bound_before_anything_starts(self) -> None:
        service = self.make()
        public, internal = service._sockets  # type: ignore[attr-defined]
        for listener in (*public, *internal):
            self.assertGreater(listener.getsockname()[1], 0)
        self.assertFalse(service.running)  # type: ignore[attr-defined]

    def test_embedded_mode_needs_no_settings(self) -> None:
        self.environment = {"MATRIX_STATE_DIR": str(self.top / "state")}
        service = self.make("--embedded")
        self.assertIsNotNone(service._embedded)  # type: ignore[attr-defined]

    def test_options_win_over_the_environment(self) -> None:
        service = self.make("--embedded", "--state-dir", str(self.top / "other"), "--idle", "7")
        self.assertTrue((self.top / "other" / "lock").exists())
        self.assertEqual(service._settings.idle_timeout, 7.0)  # type: ignore[attr-defined]

    def test_workers_have_a_queue_each(self) -> None:
        service = self.make("--workers", "3")
        self.assertIsInstance(service, Supervisor)
        queues = service._queues()  # type: ignore[attr-defined]
        self.assertEqual([len(sockets) for sockets in queues], [1, 1, 1])
        self.assertEqual(len({one.getsockname() for one in service._sockets[0]}), 1)  # type: ignore[attr-defined]
        self.assertEqual(len(service._sockets[1]), 1)  # type: ignore[attr-defined]

    def test_one_worker_is_the_router_itself(self) -> None:
        self.assertIsInstance(self.make("--workers", "1"), Router)

    def test_no_or_too_many_workers(self) -> None:
        for count in ("0", "1000", "many"):
            self.assertIn("MATRIX_WORKERS", self.refused("--workers", count))

    def test_what_is_missing_is_named(self) -> None:
        text = self.refused(MATRIX_DAEMON_TOKEN="", MATRIX_ISSUER="")
        self.assertIn("MATRIX_ISSUER, MATRIX_DAEMON_TOKEN", text)
        self.assertIn("--embedded", text)

    def test_without_a_database_it_is_embedded(self) -> None:
        service = self.make(DATABASE_URL="")
        self.assertIsNotNone(service._embedded)  # type: ignore[attr-defined]

    def test_embedded_means_embedded_whatever_else_is_set(self) -> None:
        service = self.make("--embedded")
        self.assertIsNotNone(service._embedded)  # type: ignore[attr-defined]

    def test_a_port_in_use(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            for option in ("--listen", "--internal"):
                text = self.refused(option, f"127.0.0.1:{port}")
                self.assertIn(f"127.0.0.1:{port}", text)
                self.assertIn("another program listens there already", text)

    def test_a_bad_certificate(self) -> None:
        (self.top / "bad.pem").write_text("no certificate")
        text = self.refused(MATRIX_TLS_CERT=str(self.top / "bad.pem"))
        self.assertIn("MATRIX_TLS_CERT", text)
        self.assertIn("bad.pem", text)

    def test_a_public_address_in_embedded_mode(self) -> None:
        for option, setting in (("--listen", "MATRIX_LISTEN"), ("--internal", "MATRIX_INTERNAL")):
            text = self.refused("--embedded", option, "0.0.0.0:0")
            self.assertIn(setting, text)
            self.assertIn("loopback", text)
        self.assertFalse((self.top / "state").exists(), "nothing was made before")

    def test_a_second_one_in_the_same_directory(self) -> None:
        self.make("--embedded")
        self.assertIn(f"process {os.getpid()}", self.refused("--embedded"))

    def test_an_unknown_env_file(self) -> None:
        self.assertIn("--env-file /nowhere", self.refused("--env-file", "/nowhere"))

    def test_an_env_file_is_read(self) -> None:
        file = self.top / "env"
        file.write_text("MATRIX_IDLE_TIMEOUT=11\n")
        service = self.make("--env-file", str(file))
        self.assertEqual(service._settings.idle_timeout, 11.0)  # type: ignore[attr-defined]

    def test_values_that_cannot_be_used(self) -> None:
        self.assertIn("MATRIX_IDLE_TIMEOUT", self.refused("--idle", "soon"))
        self.assertIn("MATRIX_LISTEN", self.refused("--listen", "nowhere"))
        self.assertIn("MATRIX_DAEMON_TOKEN", self.refused(MATRIX_DAEMON_TOKEN="short"))

    def test_another_reactor(self) -> None:
        self.assertIn("--reactor=asyncio", self.refused(on=Clock()))


class HelpersTests(SynchronousTestCase):
    def test_limits_follow_the_settings(self) -> None:
        with mock.patch.dict(os.environ, {}, clear=True):
            settings = load(
                head_timeout=1, body_timeout=2, keepalive_timeout=3, response_timeout=4,
                stream_timeout=5,
            )  # fmt: skip
        limits = limits_from(settings)
        self.assertEqual(
            (limits.head_time, limits.body_silence, limits.keep_alive),
            (1.0, 2.0, 3.0),
        )
        self.assertEqual((limits.response_time, limits.stream_silence), (4.0, 5.0))

    def test_addresses_as_a_browser_takes_them(self) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            self.assertEqual(url("https", listener), f"https://localhost:{port}/")
            self.assertEqual(url("http", listener), f"http://127.0.0.1:{port}/")
