"""C{matrix restore}: what is asked for, and what it needs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from matrix.cli import _restore, main
from matrix.router import vault
from matrix.snapshots import Dated, ResticFailed

ALICE = "0a1b2c3d-0000-4000-8000-00000000000a"
STORE = {
    "DATABASE_URL": "postgresql://u:p@h/d",
    "MATRIX_DAEMON_TOKEN": "the-master-secret-of-this-test-0123456789",
    "MATRIX_S3_ENDPOINT": "http://127.0.0.1:9",
    "MATRIX_S3_ACCESS_KEY": "public",
    "MATRIX_S3_SECRET_KEY": "hush-hush",
}
NOON = Dated("ab" * 32, datetime(2026, 11, 23, 12, tzinfo=UTC))
DAWN = Dated("cd" * 32, datetime(2026, 11, 23, 6, tzinfo=UTC))


class FakeShelf:
    """Writes a line where something is restored."""

    def snapshots(self) -> list[Dated]:
        return [DAWN, NOON]

    def bring(self, snapshot: Dated, target: Path, stand_ins: str, only: str | None) -> None:
        if only == "/missing":
            raise ResticFailed("there is no /missing in snapshot abababab")
        target.write_text(f"{snapshot.id[:2]} {only}")


class FakeServer:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def post(self, path: str) -> Any:
        self.told.append(path)
        told = {"user": ALICE, "email": "alice@localhost", "state": "running", "ms": 1200}
        return {**told, "snapshot": NOON.id, "at": NOON.at.isoformat()}


class RestoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.patch(vault, "open_shelf", lambda settings, who: FakeShelf())
        self.server = FakeServer()
        self.patch(_restore, "locate", lambda settings: self.server)

    def restore(self, *arguments: str, text: str = "") -> Result:
        command = ["restore", ALICE, *arguments]
        return CliRunner().invoke(main, command, env=STORE, prog_name="matrix", input=text)

    def test_to_a_folder(self) -> None:
        target = self.folder / "there"
        shown = self.restore("--to", str(target))
        self.assertEqual(shown.exit_code, 0, shown.output)
        self.assertEqual(target.read_text(), "ab None")
        self.assertIn("(abababab)", shown.output)

    def test_as_of_a_time_or_by_its_id(self) -> None:
        for option in (("--at", "2026-11-23T07:00Z"), ("--snapshot", "cdcd")):
            target = self.folder / option[0]
            found = json.loads(self.restore("--to", str(target), "--json", *option).stdout)
            self.assertEqual(found["snapshot"], DAWN.id)
            self.assertEqual(found["to"], str(target.absolute()))

    def test_a_file_goes_into_the_folder(self) -> None:
        shown = self.restore("--to", str(self.folder), "--file", "/notes/a.txt")
        self.assertEqual(shown.exit_code, 0, shown.output)
        self.assertEqual((self.folder / "a.txt").read_text(), "ab /notes/a.txt")
        shown = self.restore("--to", str(self.folder), "--file", "/missing")
        self.assertEqual(shown.exit_code, 1)
        self.assertIn("there is no /missing", shown.output)

    def test_a_folder_in_use_is_left_alone(self) -> None:
        (self.folder / "mine").write_text("mine")
        shown = self.restore("--to", str(self.folder))
        self.assertEqual(shown.exit_code, 1)
        self.assertIn("Directory not empty", shown.output)
        self.assertEqual((self.folder / "mine").read_text(), "mine")

    def test_onto_the_machine(self) -> None:
        shown = self.restore("--yes", "--at", "2026-11-23T07:00:00+00:00", "--discard")
        self.assertEqual(shown.exit_code, 0, shown.output)
        [path] = self.server.told
        self.assertTrue(path.startswith(f"users/{ALICE}/restore?at=2026-11-23T"), path)
        self.assertTrue(path.endswith("&discard=true"), path)
        self.assertIn("alice@localhost:  running, as of", shown.output)

    def test_it_asks_first(self) -> None:
        self.assertEqual(self.restore(text="n\n").exit_code, 1)
        self.assertEqual(self.server.told, [])
        self.assertEqual(self.restore(text="y\n").exit_code, 0)

    def test_what_does_not_go_together(self) -> None:
        for arguments, said in (
            (("--at", "today"), "is no time"),
            (("--at", "2026-11-23", "--snapshot", "ab"), "give one"),
            (("--file", "a"), "--file needs --to"),
        ):
            shown = self.restore(*arguments)
            self.assertEqual(shown.exit_code, 2)
            self.assertIn(said, shown.output)


class VaultTests(SynchronousTestCase):
    def test_what_is_not_set_is_named(self) -> None:
        for missing, said in (
            ("MATRIX_S3_ENDPOINT", "MATRIX_S3_ENDPOINT is not set"),
            ("MATRIX_DAEMON_TOKEN", "MATRIX_DAEMON_TOKEN is not set"),
        ):
            environment = {name: value for name, value in STORE.items() if name != missing}
            command = ["restore", ALICE, "--to", self.mktemp()]
            shown = CliRunner().invoke(main, command, env=environment, prog_name="matrix")
            self.assertEqual(shown.exit_code, 1, shown.output)
            self.assertIn(said, shown.output)
            self.assertNotIn("hush", shown.output)

    def test_an_embedded_one_that_never_ran(self) -> None:
        state = Path(self.mktemp())
        command = ["--state-dir", str(state), "restore", ALICE, "--to", self.mktemp()]
        shown = CliRunner().invoke(main, command, prog_name="matrix")
        self.assertEqual(shown.exit_code, 1)
        self.assertIn("no store of snapshots was ever started", shown.output)
