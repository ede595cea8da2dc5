"""
What a machine's daemon says of a snapshot that it takes. Pure.

Machines are untrusted: what they say is bounded and checked before anything is made of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LINE_LIMIT = 16 * 1024
"""Bytes: a line has some hundred."""

REASON_LIMIT = 500
"""Characters of a reason that are kept: it is shown in a line."""

_NAME = re.compile(r"[0-9a-f]{64}")
_LARGEST = 2**53
"""Bytes or files: more than any machine has, and exact in JSON wherever it is read."""


class Nonsense(ValueError):
    """A daemon says what none should."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    stage: str
    files_done: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    """0 while unknown."""


@dataclass(frozen=True, slots=True)
class Done:
    """It is taken, and in the repository."""

    restic_id: str
    bytes_added: int = 0
    bytes_total: int = 0
    partial: bool = False
    """Whether some files could not be read."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """None was needed: nothing was written since the last good one."""

    last: Done | None = None
    """That one, if the daemon tells."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It could not be taken."""

    reason: str
    retry: bool = True
    """Whether another attempt may go better by itself."""


Outcome = Done | Unchanged | Failed
Report = Progress | Outcome


def read_report(line: bytes) -> Report:
    """
    One line of a daemon's report.

    @raise Nonsense: it is none.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise Nonsense("a line that is no JSON") from None
    if not isinstance(found, dict):
        raise Nonsense("a line that is no JSON object")
    return report_of(found)


def report_of(found: Mapping[str, Any]) -> Report:
    """
    A report from its JSON object.

    @raise Nonsense: it is none.
    """
    kind = found.get("kind")
    if kind == "progress":
        numbers = (_number(found, name) for name in ("files_done", "bytes_done", "bytes_total"))
        return Progress(_text(found.get("stage"), 40), *numbers)
    if kind == "done":
        name = found.get("snapshot")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Nonsense("a snapshot without restic's full name of it")
        added, total = _number(found, "bytes_added"), _number(found, "bytes_total")
        return Done(name, added, total, found.get("partial") is True)
    if kind == "unchanged":
        last = found.get("last")
        # Only a good one is looked into: others could hold others without end.
        is_good = isinstance(last, Mapping) and last.get("kind") == "done"
        good = outcome_of(last) if is_good else None
        return Unchanged(good if isinstance(good, Done) else None)
    if kind == "failed":
        reason = _text(found.get("reason"), REASON_LIMIT) or "the machine does not say why"
        return Failed(reason, found.get("retry") is not False)
    raise Nonsense("a line of a kind that is not known")


def outcome_of(found: object) -> Outcome | None:
    """How a run ended that a daemon remembers; C{None} if it remembers none, or nonsense."""
    if not isinstance(found, Mapping):
        return None
    try:
        report = report_of(found)
    except Nonsense:
        return None
    return None if isinstance(report, Progress) else report


class Lines:
    """Whole lines out of pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        The lines that are whole now.

        @raise Nonsense: one has no end.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_LIMIT or any(len(line) > LINE_LIMIT for line in lines):
            raise Nonsense("a line that is too long")
        return (line for line in lines if line.strip())


def _number(found: Mapping[str, Any], name: str) -> int:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(min(max(value, 0), _LARGEST)) if value == value else 0


def _text(value: object, limit: int) -> str:
    if not isinstance(value, str):
        return ""
    cleaned = "".join(one if one.isprintable() else " " for one in value[: 2 * limit])
    return " ".join(cleaned.split())[:limit]
