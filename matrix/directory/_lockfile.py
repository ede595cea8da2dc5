"""What C{postmaster.pid} says: which process serves a data directory, where, and how far it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from matrix.processes import Process

NAME = "postmaster.pid"

PORT_LINE, STATUS_LINE = 3, 7
"""Counted from 0 (PostgreSQL's miscadmin.h); written line by line as the server comes up."""


@dataclass(frozen=True, slots=True)
class LockFile:
    """The lines of the file that are of use here."""

    pid: int
    port: int = 0
    """0 while the server has not come that far."""
    ready: bool = False
    """Whether it has written that it accepts connections."""

    @classmethod
    def parse(cls, text: str) -> LockFile | None:
        """Read the file's text; C{None} if it is not what PostgreSQL writes."""
        lines = [line.strip() for line in text.split("\n")]
        if not _is_number(lines[0]):
            return None
        port = lines[PORT_LINE] if len(lines) > PORT_LINE else ""
        status = lines[STATUS_LINE] if len(lines) > STATUS_LINE else ""
        return cls(int(lines[0]), int(port) if _is_number(port) else 0, status == "ready")

    @classmethod
    def read(cls, data: Path) -> LockFile | None:
        """That of a data directory; C{None} if there is none."""
        try:
            return cls.parse((data / NAME).read_text("utf-8", "replace"))
        except FileNotFoundError:
            return None


def _is_number(text: str) -> bool:
    # Longer than any process id or port, and nothing that int() should be asked about.
    return text.isascii() and text.isdigit() and len(text) <= 10


def is_postmaster(process: Process, data: Path) -> bool:
    """Whether this process is a postmaster of C{data}, by its command line. (Its working
    directory would say it better, but takes privileges to read.)"""
    try:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return words[0].endswith(b"postgres") and os.fsencode(data) in words
