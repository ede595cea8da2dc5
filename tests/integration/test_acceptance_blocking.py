"""What an operator says of who may come in holds at every router within a second."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import psycopg2

import matrix.testing
from matrix.testing.running import RunningMatrix
from matrix.testing.running_case import MatrixCase
from matrix.testing.supplied import TwoRoutersCase
from matrix.testing.wire import Answer

SOON = 1.0
"""Seconds within which a command that has ended must be felt everywhere."""

PROGRAM = Path(matrix.testing.__path__[0], "stream_machine.py")
STREAMS = shlex.join([sys.executable, str(PROGRAM), "{socket}"])


def command(matrix: Any, *arguments: str) -> str:
    """What the operator's command says, talking to this router."""
    run = matrix.announced
    done = subprocess.run(
        [sys.executable, "-m", "matrix", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "TZ": "UTC",
            "MATRIX_ADMIN_TOKEN": run["admin_token"],
            "MATRIX_INTERNAL": run["internal"].removeprefix("http://").rstrip("/"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class BlockingCase(MatrixCase):
    """Routers that must agree: all of C{routers} are asked."""

    SETTINGS: ClassVar[Mapping[str, Any]] = {"local_command": STREAMS}

    @property
    def routers(self) -> list[RunningMatrix]:
        return [self.matrix]

    def answer(self, router: RunningMatrix, token: str) -> Answer:
        return router.door.ask("GET", "/counts", token)

    def come_in(self, user: str) -> str:
        """The token of a user whom every router has let in."""
        token: str = self.matrix.token(user)
        for router in self.routers:
            self.assertEqual(self.answer(router, token).status, 200)
        return token

    def do(self, *arguments: str) -> float:
        """Give a command; when it had ended."""
        command(self.matrix, *arguments)
        return time.monotonic()

    def everywhere(self, token: str, status: int, reason: str, since: float) -> None:
        """Every router answers so soon after C{since}, and goes on doing so."""
        for router in self.routers:
            while (answer := self.answer(router, token)).status != status:
                self.assertLess(time.monotonic() - since, SOON, f"{answer} instead of {status}")
            self.tell(f"{status} {reason}", after=f"{(time.monotonic() - since) * 1000:.0f} ms")
            if reason:
                self.assertEqual(answer.json()["reason"], reason)
        for router in self.routers:
            self.assertEqual(self.answer(router, token).status, status)

    def check_states(self) -> None:
        token = self.come_in("alice")
        for verb, status, reason in (
            ("block", 403, "blocked"),
            ("unblock", 200, ""),
            ("delete", 410, "deleted"),
            ("unblock", 200, ""),
        ):
            extra = ["--yes"] if verb == "delete" else []
            self.everywhere(token, status, reason, self.do("users", verb, "alice", *extra))
        told = [(event["kind"], event["cause"]) for event in self.matrix.events("alice")]
        for kind in ("block", "unblock", "delete"):
            self.assertIn((kind, "operator"), told)

    def check_sessions(self) -> None:
        phone, laptop = (self.come_in("carol") for _ in range(2))
        self.matrix.until(lambda: self.signed_in("carol") == ["live"] * 2, 10, "both are noted")
        gone = self.session_of(phone)
        self.everywhere(phone, 401, "revoked", self.do("sessions", "revoke", gone))
        refreshed = self.matrix.token("carol", session_id=gone)
        self.everywhere(refreshed, 401, "revoked", time.monotonic())
        self.everywhere(laptop, 200, "", time.monotonic())
        self.everywhere(laptop, 401, "revoked", self.do("sessions", "revoke", "carol"))
        self.assertEqual(self.signed_in("carol"), ["revoked"] * 2)
        told = [event["detail"] for event in self.matrix.events("carol", "revoke")]
        self.assertEqual(told, [{"sessions": 1}, {"session": gone}])
        self.come_in("carol")

    def signed_in(self, user: str) -> list[str]:
        """The states of a user's sessions, as the command has them."""
        found = json.loads(command(self.matrix, "sessions", "list", user, "--json"))
        return [session["state"] for session in found["sessions"]]

    def session_of(self, token: str) -> str:
        payload = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["session_id"])


class OneRouterTests(BlockingCase):
    def test_blocked_let_in_and_deleted(self) -> None:
        self.check_states()

    def test_sessions_are_seen_and_revoked(self) -> None:
        self.check_sessions()

    def test_a_session_is_revoked_before_it_was_ever_seen(self) -> None:
        session = str(uuid4())
        said = command(self.matrix, "sessions", "revoke", session)
        self.assertIn("neither a user nor a session", said)
        token = self.matrix.token("dave", session_id=session)
        self.everywhere(token, 401, "revoked", time.monotonic())
        self.come_in("dave")

    def test_what_was_revoked_stays_so_over_a_restart(self) -> None:
        token = self.come_in("erin")
        self.everywhere(
            token, 401, "revoked", self.do("sessions", "revoke", self.session_of(token))
        )
        self.matrix.stop()
        self.matrix.start()
        self.assertEqual(self.answer(self.matrix, token).status, 401)

    def test_a_new_token_helps_nobody_who_is_blocked(self) -> None:
        self.come_in("bob")
        since = self.do("users", "block", "bob@localhost")
        for _ in range(3):
            self.everywhere(self.matrix.token("bob"), 403, "blocked", since)

    def test_sessions_are_forgotten_at_the_next_start(self) -> None:
        insert = (
            "INSERT INTO sessions (session_id, expires_at)"
            " VALUES (gen_random_uuid(), now() - interval '31 days')"
        )
        old = "SELECT 1 FROM sessions WHERE expires_at < now() - interval '30 days'"
        self.matrix.sql(insert)
        self.assertFalse(self.forgotten(old))
        self.matrix.stop()
        self.matrix.start()
        self.matrix.until(lambda: self.forgotten(old), 10, "the old session is forgotten")

    def forgotten(self, query: str) -> bool:
        """Whether a query finds nothing."""
        try:
            self.matrix.sql(f"DO $$ BEGIN ASSERT NOT EXISTS ({query}); END $$")
        except psycopg2.errors.AssertFailure:
            return False
        return True


class WorkersTests(BlockingCase):
    """What is said to the supervisor holds at all workers."""

    SETTINGS: ClassVar[Mapping[str, Any]] = {**BlockingCase.SETTINGS, "workers": 2}

    @property
    def routers(self) -> list[RunningMatrix]:
        # The kernel spreads connections by chance: of eight hardly all go to one worker.
        return [self.matrix] * 8

    def test_blocked_let_in_and_deleted(self) -> None:
        self.check_states()

    def test_sessions_are_seen_and_revoked(self) -> None:
        self.check_sessions()


class TwoRoutersTests(TwoRoutersCase, BlockingCase):
    """On one database: what is said to one holds at the other."""

    def test_blocked_let_in_and_deleted(self) -> None:
        self.check_states()

    def test_sessions_are_seen_and_revoked(self) -> None:
        self.check_sessions()
