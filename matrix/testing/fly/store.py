"""The emulator's state on disk: a file for each record, whole at every moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from matrix.errors import ConfigurationError
from matrix.testing.fly.records import App, Machine, Record, Volume

_R = TypeVar("_R", App, Machine, Volume)


class Store:
    """
    Keeps records so that they survive C{kill -9}, if not the loss of power: the kernel has
    what was written, and a record is replaced by renaming.
    """

    def __init__(self, directory: Path) -> None:
        """
        @raise ConfigurationError: the directory cannot be used.
        """
        self.directory = directory.absolute()
        try:
            for kind in (App, Machine, Volume):
                (self.directory / kind.kind).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{directory} cannot be used: {error.strerror}") from None
        self._count = self.directory / "count"
        self._given = int(self._count.read_text()) if self._count.exists() else 0

    def next_number(self) -> int:
        """Never given before."""
        self._given += 1
        self._replace(self._count, str(self._given))
        return self._given

    def save(self, record: Record) -> None:
        """Keep it as it is now."""
        self._replace(self._path(record), json.dumps(vars(record)))

    def forget(self, record: Record) -> None:
        """There is no such thing any more."""
        self._path(record).unlink(missing_ok=True)

    def load(self, kind: type[_R]) -> Iterator[_R]:
        """
        All that were kept.

        @raise ConfigurationError: one is damaged, or of another version of ours.
        """
        for path in sorted((self.directory / kind.kind).glob("*.json")):
            try:
                found: dict[str, Any] = json.loads(path.read_text("utf-8"))
                yield kind(**found)
            except (ValueError, TypeError) as error:
                raise ConfigurationError(f"{path} cannot be read: {error}") from None

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

    def _path(self, record: Record) -> Path:
        return self.directory / record.kind / f"{record.key}.json"

    @staticmethod
    def _replace(path: Path, text: str) -> None:
        scratch = path.with_suffix(".new")
        scratch.write_text(text, "utf-8")
        scratch.replace(path)
