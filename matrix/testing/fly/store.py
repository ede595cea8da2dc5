"""The emulator's state on disk: its records in an SQLite file, its volumes as directories."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from matrix.errors import ConfigurationError
from matrix.testing.fly.records import App, Machine, Record, Volume

_R = TypeVar("_R", App, Machine, Volume)

_SCHEMA = """
-- Survives kill -9: the kernel has what was written. To survive the loss of power, which no
-- emulated machine does, would cost milliseconds for each change.
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS records (
    kind TEXT, key TEXT, record TEXT NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS given (number INTEGER PRIMARY KEY AUTOINCREMENT);
"""

_SAVE = "INSERT OR REPLACE INTO records (kind, key, record) VALUES (?, ?, ?)"


class Store:
    """Keeps records so that they survive C{kill -9}."""

    def __init__(self, directory: Path) -> None:
        """
        @raise ConfigurationError: the directory cannot be used.
        """
        self.directory = directory.absolute()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            path = self.directory / "state.sqlite"
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"{directory} cannot be used: {error}") from None

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is saved within is kept as a whole, or not at all."""
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def next_number(self) -> int:
        """Never given before."""
        return int(self._database.execute("INSERT INTO given DEFAULT VALUES").lastrowid or 0)

    def save(self, record: Record) -> None:
        """Keep it as it is now."""
        self._database.execute(_SAVE, (record.kind, record.key, json.dumps(vars(record))))

    def forget(self, record: Record) -> None:
        """There is no such thing any more."""
        self._database.execute(
            "DELETE FROM records WHERE kind = ? AND key = ?", (record.kind, record.key)
        )

    def load(self, kind: type[_R]) -> Iterator[_R]:
        """
        All that were kept.

        @raise ConfigurationError: one is of another version of ours.
        """
        found = self._database.execute(
            "SELECT key, record FROM records WHERE kind = ? ORDER BY key", (kind.kind,)
        )
        for key, text in found.fetchall():
            members: dict[str, Any] = json.loads(text)
            try:
                yield kind(**members)
            except TypeError as error:
                raise ConfigurationError(
                    f"{self.directory} is of another version, see {kind.kind} {key}: {error}"
                ) from None

    def volume(self, volume_id: str) -> Path:
        """Where a volume's data are."""
        return self.directory / "volumes" / volume_id / "data"

    def snapshot(self, volume_id: str, snapshot_id: str) -> Path:
        """Where the copy is that was made of a volume."""
        return self.directory / "volumes" / volume_id / "snapshots" / snapshot_id

    def machine(self, machine_id: str) -> Path:
        """Where a machine has its root file system, log and pid file."""
        return self.directory / "machines" / machine_id

    def drop(self, path: Path) -> None:
        """Delete what is there. Blocks."""
        shutil.rmtree(path, ignore_errors=True)
