"""A running Matrix looks after its users' snapshots, and what the deleted had is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from matrix.auth import MachineSecrets
from matrix.router.embedded import MASTER_FILE
from matrix.snapshots import Desk, EmbeddedSeaweed
from matrix.testing.running_case import MatrixCase

SECONDS = 90.0
"""For several runs of restic, on a busy host."""

NOTES = "/v1/files/notes.txt"


class KeepingTests(MatrixCase):
    """In embedded mode, at any hour."""

    SETTINGS = {"snapshots": "true", "keeping_hours": "0-24", "delete_grace": 1}

    def setUp(self) -> None:
        self.matrix.until(
            lambda: "snapshots are kept in" in self.matrix.output(), SECONDS, "there is a store"
        )

    def snapshot(self, user: str) -> dict[str, Any]:
        """Have one taken."""
        token = self.matrix.announced["admin_token"]
        said = self.matrix._internal(f"/admin/v1/users/{user}/snapshot", "POST", token)
        last: dict[str, Any] = json.loads(said.splitlines()[-1])
        self.assertEqual(last["kind"], "done", last)
        return last

    def upkeep(self, user: str) -> dict[str, Any]:
        """What was done for a user, by the chore."""
        return {one["cause"]: one["detail"] for one in self.matrix.events(user, "upkeep")}

    def another_round(self) -> None:
        """A router that starts looks at once what is due."""
        self.matrix.sql("UPDATE upkeep SET scrub_at = now(), thin_at = now(), erase_at = now()")
        self.matrix.stop()
        self.matrix.start()

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A run of the C{matrix} command."""
        command = [sys.executable, "-m", "matrix", "--state-dir", str(self.matrix.state), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)

    def test_checked_tried_and_brought_back(self) -> None:
        self.ask("alice", "PUT", NOTES, b"remember the milk")
        taken = self.snapshot("alice")
        self.another_round()
        self.matrix.until(
            lambda: {"drill", "scrub"} <= self.upkeep("alice").keys(), SECONDS, "both are done"
        )
        done = self.upkeep("alice")
        self.assertEqual(done["drill"]["snapshot"], taken["snapshot"])
        self.tell("drill", **done["drill"])
        [newest, *_] = self.matrix.admin("users/alice/snapshots")["snapshots"]
        self.assertIsNotNone(newest["verified_at"])
        self.assertEqual(self.matrix.admin("upkeep"), {"troubled": []})

        target = Path(self.matrix.home) / "there"
        ran = self.command("restore", "alice", "--to", str(target))
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual((target / "workspace" / "notes.txt").read_text(), "remember the milk")
        ran = self.command("restore", "alice", "--file", "workspace/notes.txt", "--to", str(target))
        self.assertEqual((target / "notes.txt").read_text(), "remember the milk")

    def test_the_deleted(self) -> None:
        self.ask("bob", "PUT", NOTES, b"of bob's")
        self.snapshot("bob")
        self.matrix.admin("users/bob/delete", "POST")
        self.assertEqual(self.ask("bob", "GET", NOTES).status, 410)
        self.another_round()
        self.matrix.until(lambda: "erase" in self.upkeep("bob"), SECONDS, "his data are erased")
        self.assertEqual(self.row("bob")["state"], "destroyed")
        self.assertFalse(self.matrix.workspace("bob").exists())
        self.assertEqual(self.shelf_of("bob"), "gone")
        with self.assertRaises(HTTPError) as caught:
            self.matrix.admin("users/bob/unblock", "POST")
        self.assertEqual(caught.exception.code, 409)
        caught.exception.close()
        self.assertEqual(self.ask("bob", "GET", NOTES).status, 410)

    def shelf_of(self, user: str) -> str:
        """Whether there is a repository of a user's."""
        who = self.matrix.user_id(user)
        master = (self.matrix.state / MASTER_FILE).read_text().strip()
        desk = Desk(EmbeddedSeaweed.find(self.matrix.state / "s3"), "users/")
        command = desk.command("cat", "config")
        environment = desk.environment(who, MachineSecrets(master).restic_password(who))
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        return "gone" if "key does not exist" in ran.stderr else f"{ran.returncode} {ran.stderr}"
