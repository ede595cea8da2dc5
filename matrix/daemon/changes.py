"""Changes of files as they are told, and how many of them become few; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from matrix.daemon.paths import Parts

PENDING_LIMIT = 512
"""Changes gathered in one window. More at once (a checkout, an unpacked archive) are told as
one: look again. Readers list a folder faster than they apply hundreds of changes."""


class Kind(StrEnum):
    """What happened."""

    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"
    MOVED = "moved"
    RESET = "reset"
    """Changes were missed, or are too many to tell: list again what you show."""


@dataclass(frozen=True, slots=True)
class Change:
    """
    One thing that happened in the workspace.

    A folder that is deleted or moved takes along all it contains; that is told once.
    """

    kind: Kind
    path: Parts
    at: float
    """Unix seconds."""
    source: Parts | None = None
    """Where it was before it was moved."""


class Gathering:
    """
    The changes of one short window, the fewest that leave a reader with the same picture.

    A file written in a thousand pieces is modified once. Order is kept where it matters:
    nothing is merged across a move.
    """

    def __init__(self, limit: int = PENDING_LIMIT) -> None:
        self._limit = limit
        self._changes: list[Change | None] = []
        self._last: dict[Parts, int] = {}
        self._overflow: Change | None = None

    def __bool__(self) -> bool:
        return bool(self._changes) or self._overflow is not None

    def add(self, change: Change) -> None:
        """One more change, later than those before."""
        if self._overflow is not None:
            return
        if change.kind is Kind.RESET or len(self._last) >= self._limit:
            self._overflow = replace(change, kind=Kind.RESET, path=(), source=None)
        elif change.kind is Kind.MOVED:
            self._changes.append(change)
            self._last.clear()
        else:
            self._merge(change)
        if len(self._changes) > 2 * self._limit:
            self._overflow = Change(Kind.RESET, (), change.at)

    def take(self) -> list[Change]:
        """All of them, in order; the window is over."""
        changes = [change for change in self._changes if change is not None]
        if self._overflow is not None:
            changes = [self._overflow]
        self._changes, self._last, self._overflow = [], {}, None
        return changes

    def _merge(self, change: Change) -> None:
        index = self._last.get(change.path)
        before = self._changes[index] if index is not None else None
        if index is None or before is None:
            self._last[change.path] = len(self._changes)
            self._changes.append(change)
            return
        match before.kind, change.kind:
            case Kind.DELETED, Kind.DELETED:
                return
            case Kind.DELETED, _:
                kind = Kind.MODIFIED
            case _, Kind.DELETED:
                # Told last, as deletions of what a folder contained come before its own.
                self._changes[index] = None
                self._last[change.path] = len(self._changes)
                self._changes.append(change)
                return
            case _:
                kind = before.kind
        self._changes[index] = replace(change, kind=kind)
