"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """
    Replace a file: a reader, and whoever looks after a crash, finds the old content or the new.

    @param mode: its permissions; by default it is for our eyes only.
    @raise OSError: it cannot be written; the old one is as it was.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # what a crash left may have another owner or mode
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
