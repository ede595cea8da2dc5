"""What an operator says of who may come in holds at every router within a second."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg2

import matrix.testing
from matrix.testing.running import RunningMatrix
from matrix.testing.running_case import MatrixCase
from matrix.testing.supplied import SuppliedMatrix, Supply
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

    SETTINGS = {"local_command": STREAMS}

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


class OneRouterTests(BlockingCase):
    def test_blocked_let_in_and_deleted(self) -> None:
        self.check_states()

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


class TwoRoutersTests(BlockingCase):
    """On one database: what is said to one holds at the other."""

    other: Any = None

    @property
    def routers(self) -> list[RunningMatrix]:
        return [self.other, self.matrix]

    @classmethod
    def setUpClass(cls) -> None:
        supply = Supply()
        cls.addClassCleanup(supply.close)
        made = []
        for _ in range(2):
            router = SuppliedMatrix(supply, **cls.SETTINGS)
            cls.addClassCleanup(router.close)
            made.append(router.start())
        cls.matrix, cls.other = made

    def test_blocked_let_in_and_deleted(self) -> None:
        self.check_states()
