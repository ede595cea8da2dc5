"""A running Matrix has machines' snapshots taken: when asked, in time, before sleep, once each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matrix.auth import MachineSecrets
from matrix.testing.running_case import MatrixCase

READY_SECONDS = 60.0
"""For its S3 server to be there: 2.5 s, on a busy host much longer."""

TAKEN_SECONDS = 40.0
"""For an interval to pass and a snapshot to be taken, on a busy host."""


class TakenTests(MatrixCase):
    """In embedded mode with two workers: each takes for the machines that it has awake."""

    SETTINGS = {"snapshots": "true", "snapshot_interval": "4", "workers": "2", "idle": 900}

    def setUp(self) -> None:
        for user in ("alice", "bob"):
            self.assertEqual(self.ask(user, "GET", "/").status, 200)
        self.matrix.until(
            lambda: "snapshots are kept in" in self.matrix.output(),
            READY_SECONDS,
            "the store is there",
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A run of C{matrix}."""
        program = Path(sys.executable).with_name("matrix")
        return subprocess.run(
            [program, "--state-dir", self.matrix.state, *arguments],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def rows(self, user: str, cause: str | None = None) -> list[Mapping[str, Any]]:
        """A user's good snapshots, newest first."""
        found = self.matrix.admin(f"users/{user}/snapshots")["snapshots"]
        return [one for one in found if one["status"] == "done" and cause in (None, one["cause"])]

    def write(self, user: str, name: str) -> None:
        """Something new in a user's workspace."""
        (self.matrix.workspace(user) / name).write_bytes(os.urandom(100_000))

    def in_repository(self, user: str) -> list[Mapping[str, Any]]:
        """What restic itself finds there."""
        secrets = MachineSecrets((self.matrix.state / "master-secret").read_text().strip())
        who = self.matrix.user_id(user)
        place = str(self.matrix.announced["internal"]).removeprefix("http://").rstrip("/")
        account = secrets.restic_account(who, 1)
        ran = subprocess.run(
            ["restic", "--no-cache", "--json", "snapshots"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.matrix.home),
                "RESTIC_PASSWORD": secrets.restic_password(who),
                "RESTIC_REPOSITORY": f"rest:http://{who}:{account}@{place}/restic/{who}/",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(ran.returncode, 0, ran.stderr)
        found: list[Mapping[str, Any]] = json.loads(ran.stdout)
        return found

    def test_when_asked_in_time_and_before_sleep(self) -> None:
        self.write("alice", "one")
        ran = self.command("snapshot", "alice")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertTrue(self.rows("alice"), ran.stdout)

        self.write("alice", "two")
        self.matrix.until(
            lambda: self.rows("alice", "interval"), TAKEN_SECONDS, "one is taken in time"
        )
        self.write("alice", "three")
        self.matrix.suspend("alice")
        self.assertTrue(self.rows("alice", "suspend"), "the newest is from before its sleep")
        told = self.matrix.admin("snapshots")["users"]
        self.assertEqual([one["failures"] for one in told], [0] * len(told))

        known = {one["snapshot"] for one in self.rows("alice")}
        self.assertEqual({one["id"] for one in self.in_repository("alice")}, known)
        listed = self.command("snapshots", "alice")
        for one in self.rows("alice"):
            self.assertIn(one["snapshot"][:8], listed.stdout)
        self.assertIn("alice@localhost", self.command("snapshots").stdout)
        self.assertGreaterEqual(self.matrix.metric("matrix_snapshots_total", outcome="done"), 1)

    def test_a_machine_is_told_what_it_boots_from_and_no_other(self) -> None:
        ran = self.command("snapshot", "bob", "--json")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        [newest, *_] = self.rows("bob")
        secrets = MachineSecrets((self.matrix.state / "master-secret").read_text().strip())
        who = self.matrix.user_id("bob")
        token = secrets.machine_to_router(who, 1)
        answer = self.matrix._internal(f"/machine/v1/{who}/restore", token=token)
        self.assertEqual(json.loads(answer)["snapshot"], newest["snapshot"])
