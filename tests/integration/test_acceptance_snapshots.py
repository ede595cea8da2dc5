"""A running Matrix keeps each machine's snapshots, and each machine from those of the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from matrix.auth import MachineSecrets
from matrix.testing.running_case import MatrixCase

READY_SECONDS = 60.0
"""For its S3 server to be there: 2.5 s, on a busy host much longer."""


class SnapshotTests(MatrixCase):
    """In embedded mode, with an S3 server of its own."""

    SETTINGS = {"snapshots": "true"}

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="matrix-restic-"))
        self.addCleanup(shutil.rmtree, self.folder)
        for user in ("alice", "bob"):
            self.assertEqual(self.ask(user, "GET", "/healthz").status, 200)
        master = (self.matrix.state / "master-secret").read_text().strip()
        self.secrets = MachineSecrets(master)
        self.password = self.secrets.restic_password(self.matrix.user_id("alice"))
        self.matrix.until(
            lambda: "snapshots are kept in" in self.matrix.output(),
            READY_SECONDS,
            "the store is there",
        )

    def repository(self, user: str, owner: str | None = None, epoch: int = 1) -> str:
        """What restic is told: C{user}'s credential for C{owner}'s repository."""
        who, whose = self.matrix.user_id(user), self.matrix.user_id(owner or user)
        word = self.secrets.restic_account(who, epoch)
        place = str(self.matrix.announced["internal"]).removeprefix("http://").rstrip("/")
        return f"rest:http://{who}:{word}@{place}/restic/{whose}/"

    def restic(self, repository: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A run of restic."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "RESTIC_PASSWORD": self.password,
            "NO_PROXY": "127.0.0.1",
        }
        return subprocess.run(
            ["restic", "-r", repository, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def done(self, *arguments: str) -> None:
        """A run of alice's restic that succeeds."""
        ran = self.restic(self.repository("alice"), *arguments)
        self.assertEqual(ran.returncode, 0, ran)

    def test_ones_own_and_no_others(self) -> None:
        (self.folder / "notes").write_text("what alice would miss")
        self.matrix.suspend("alice")  # for which her machine makes the repository
        self.done("backup", str(self.folder / "notes"))
        for repository, said in (
            (self.repository("bob", owner="alice"), "403"),
            (self.repository("alice", epoch=2), "401"),
        ):
            ran = self.restic(repository, "snapshots")
            self.assertNotEqual(ran.returncode, 0)
            self.assertIn(said, ran.stderr)
        self.done("check", "--read-data")
        for secret in (self.secrets.restic_account(self.matrix.user_id("alice"), 1), self.password):
            self.assertNotIn(secret, self.matrix.output())
        self.done(
            "restore",
            "latest",
            "--path",
            str(self.folder / "notes"),
            "--target",
            str(self.folder / "back"),
        )
        back = Path(f"{self.folder / 'back'}{self.folder}") / "notes"
        self.assertEqual(back.read_text(), "what alice would miss")
