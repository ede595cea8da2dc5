"""Embedded mode keeps to loopback, keeps its secrets, and keeps its directory to itself."""

from __future__ import annotations

import json
import os
import ssl
import stat
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import MachineSecrets
from matrix.errors import ConfigurationError
from matrix.router import embedded as embedded_module
from matrix.router.embedded import USERS, Embedded, check_loopback
from matrix.settings import Settings, load
from tests.router.world import run


class Postgres:
    """In place of a server: what embedded mode asks of one."""

    def __init__(self, directory: Path, reactor: Any) -> None:
        self.directory = directory
        self.running = False

    async def start(self) -> str:
        self.running = True
        return "postgresql://matrix:pw@127.0.0.1:1/matrix"

    async def stop(self) -> None:
        self.running = False


class EmbeddedTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(embedded_module, "EmbeddedPostgres", Postgres)
        self.state = Path(self.mktemp()) / "state"

    def open(self, **environment: str) -> Embedded:
        with mock.patch.dict(os.environ, environment, clear=True):
            settings = load(state_dir=self.state)
        embedded = Embedded(Clock(), settings)
        self.addCleanup(self.close, embedded)
        return embedded

    def close(self, embedded: Embedded) -> None:
        """Give the lock back, if that is not done yet."""
        try:
            os.close(embedded._lock)
        except OSError:
            return


class LoopbackTests(SynchronousTestCase):
    def test_loopback_and_unix_sockets_will_do(self) -> None:
        for host in ("localhost", "127.0.0.1", "::1", None):
            check_loopback("MATRIX_LISTEN", host)

    def test_anything_else_is_refused_by_its_setting(self) -> None:
        for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", "127.0.0.1.example.org"):
            with self.assertRaises(ConfigurationError) as caught:
                check_loopback("MATRIX_LISTEN", host)
            self.assertTrue(str(caught.exception).startswith("MATRIX_LISTEN: "))
            self.assertIn(host, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))


class SettlingTests(EmbeddedTestCase):
    def settled(self, **given: str) -> Settings:
        with mock.patch.dict(os.environ, {}, clear=True):
            settings = load(state_dir=os.path.relpath(self.state), **given)
            embedded = Embedded(Clock(), settings)
        self.addCleanup(self.close, embedded)
        return embedded.settle(settings)

    def test_the_state_directory_is_the_same_from_wherever_it_is_asked_for(self) -> None:
        self.assertEqual(self.settled().state_dir, self.state.absolute())

    def test_the_access_log_lies_in_it(self) -> None:
        self.assertEqual(self.settled().access_log, str(self.state.absolute() / "access.log"))

    def test_unless_it_was_set(self) -> None:
        self.assertEqual(self.settled(access_log="-").access_log, "-")


class DirectoryTests(EmbeddedTestCase):
    def test_everything_is_made(self) -> None:
        embedded = self.open()
        self.assertEqual(embedded.directory, self.state.absolute())
        for path in (embedded.ca, embedded.cert, embedded.key):
            self.assertTrue(path.is_file(), path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(embedded.cert, embedded.key)

    def test_others_may_pass_and_not_look(self) -> None:
        self.open()
        self.assertEqual(stat.S_IMODE(self.state.stat().st_mode), 0o711)

    def test_secrets_are_for_our_eyes_only(self) -> None:
        embedded = self.open()
        embedded.announce("https://localhost:1/", "http://127.0.0.1:2/", lambda text: None)
        readable = [
            path
            for path in self.state.rglob("*")
            if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
        ]
        open_to_all = {path.name for path in readable if self.reachable(path)}
        self.assertEqual(open_to_all, set())
        for name in ("admin-token", "master-secret", "run.json", "lock"):
            self.assertEqual(stat.S_IMODE((self.state / name).stat().st_mode), 0o600, name)

    def reachable(self, path: Path) -> bool:
        """Whether others can pass all directories down to here."""
        between = [*path.relative_to(self.state).parents][:-1]
        return all((self.state / each).stat().st_mode & 0o011 for each in between)

    def test_secrets_stay_the_same(self) -> None:
        first = self.open()
        self.close(first)
        second = self.open()
        self.assertEqual(first.admin_token, second.admin_token)
        self.assertEqual(first.cert.read_bytes(), second.cert.read_bytes())
        self.assertNotEqual(first.codes, second.codes, "links are good for one run")

    def test_they_suffice_to_derive_from(self) -> None:
        embedded = self.open()
        MachineSecrets(str(embedded._master))

    def test_secrets_that_are_given_are_taken(self) -> None:
        embedded = self.open(MATRIX_ADMIN_TOKEN="given", MATRIX_DAEMON_TOKEN="g" * 40)
        self.assertFalse((self.state / "admin-token").exists())
        self.assertFalse((self.state / "master-secret").exists())
        self.assertNotIn("given", repr(embedded.admin_token))

    def test_two_at_once_are_one_too_many(self) -> None:
        self.open()
        with self.assertRaises(ConfigurationError) as caught:
            self.open()
        text = str(caught.exception)
        self.assertIn(f"process {os.getpid()}", text)
        self.assertIn("MATRIX_STATE_DIR", text)
        self.assertNotIn("\n", text)

    def test_one_after_the_other_is_fine(self) -> None:
        self.close(self.open())
        self.open()

    def test_a_directory_that_cannot_be_made_is_said_so(self) -> None:
        self.state.parent.mkdir(parents=True, exist_ok=True)
        self.state.write_text("a file")
        with self.assertRaises(ConfigurationError) as caught:
            self.open()
        self.assertTrue(str(caught.exception).startswith("MATRIX_STATE_DIR: "))

    def test_a_part_of_it_that_cannot_be_made_is_said_so(self) -> None:
        self.state.mkdir(parents=True)
        (self.state / "tls").write_text("a file")
        with self.assertRaises(ConfigurationError) as caught:
            self.open()
        self.assertIn("MATRIX_STATE_DIR", str(caught.exception))


class RunningTests(EmbeddedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.embedded = self.open()
        self.said: list[str] = []
        self.embedded.announce(
            "https://localhost:8443/", "http://127.0.0.1:9443/", self.said.append
        )

    def test_it_says_where_it_is_and_how_to_come_in(self) -> None:
        [text] = self.said
        self.assertIn("embedded mode", text)
        self.assertIn("https://localhost:8443/\n", text)
        self.assertIn("http://127.0.0.1:9443/\n", text)
        self.assertRegex(text, r"https://localhost:8443/-/signin\?code=[\w-]{22}\b")
        self.assertRegex(text, r'curl --cacert \S+ca\.pem -H "Authorization: Bearer eyJ\S+"')
        code = text.partition("code=")[2].split()[0]
        self.assertEqual(self.embedded.codes[code], "alice")
        self.assertEqual(sorted(self.embedded.codes.values()), sorted(USERS))

    def test_it_writes_down_where_it_is(self) -> None:
        run_file = json.loads((self.state / "run.json").read_text())
        self.assertEqual(run_file["public"], "https://localhost:8443/")
        self.assertEqual(run_file["internal"], "http://127.0.0.1:9443/")
        self.assertEqual(run_file["pid"], os.getpid())
        self.assertEqual(run_file["admin_token"], (self.state / "admin-token").read_text())
        self.assertTrue(Path(run_file["ca"]).is_file())

    def test_stopping_takes_that_away_and_frees_the_directory(self) -> None:
        self.assertEqual(run(self.embedded.stop()), [None])
        self.assertFalse((self.state / "run.json").exists())
        self.open()

    def test_stopping_what_never_started_is_fine(self) -> None:
        (self.state / "run.json").unlink()
        self.assertEqual(run(self.embedded.stop()), [None])
