"""How often Fly was asked for what: the evidence that a test wants."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

KEPT = 20_000
"""Of the latest calls; the counts go on for ever."""


@dataclass(frozen=True)
class Made:
    """A call that was made."""

    at: float
    """The Unix time at which its answer was decided."""
    action: str
    subject: str
    """The machine, volume or app that it was about."""
    status: int
    """0 if the connection was closed instead."""
    fault: str | None
    request_id: str


class Calls:
    """Counts of all calls, and the latest ones themselves."""

    def __init__(self) -> None:
        self.total = 0
        self.by_action: Counter[str] = Counter()
        self.by_status: Counter[int] = Counter()
        self.latest: deque[Made] = deque(maxlen=KEPT)

    def begun(self, action: str) -> None:
        """A call came in."""
        self.total += 1
        self.by_action[action] += 1

    def ended(self, made: Made) -> None:
        """Its answer is known."""
        self.by_status[made.status] += 1
        self.latest.append(made)

    def clear(self) -> None:
        """Count from nothing."""
        self.total = 0
        self.by_action.clear()
        self.by_status.clear()
        self.latest.clear()

    def shown(self, action: str | None = None, subject: str | None = None) -> dict[str, Any]:
        """
        The counts, and the calls that are of this action and about this subject if either is
        given.
        """
        chosen = [
            asdict(made)
            for made in self.latest
            if action in (None, made.action) and subject in (None, made.subject)
        ]
        return {
            "total": self.total,
            "by_action": dict(self.by_action),
            "by_status": {str(status): number for status, number in self.by_status.items()},
            "calls": chosen if action or subject else [],
        }
