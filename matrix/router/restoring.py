"""What a machine says of itself while it brings back its user's data. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MEMBER = re.compile(rb"\s*(done|total|waiting)\s*=\s*([^;]*)")

REASON_LENGTH = 200
"""Characters of a machine's own words that are shown: it may say anything."""


@dataclass(frozen=True, slots=True)
class Restoring:
    """How far it has come."""

    done: int = 0
    """Bytes."""
    total: int = 0
    """Bytes; 0 while it is not known."""
    waiting: str = ""
    """What it waits for, if it does."""

    @classmethod
    def read(cls, state: bytes) -> Restoring:
        """
        From C{restoring; done=BYTES; total=BYTES} or C{restoring; waiting=REASON}. What cannot
        be understood is left out.
        """
        found = (_MEMBER.fullmatch(part) for part in state.split(b";"))
        members: dict[bytes, bytes] = {match[1]: match[2] for match in found if match}
        text = members.get(b"waiting", b"").decode("ascii", "replace").strip()
        waiting = "".join(one if one.isprintable() else "?" for one in text)[:REASON_LENGTH]
        return cls(_number(members.get(b"done")), _number(members.get(b"total")), waiting)

    @property
    def percent(self) -> int | None:
        """C{None} while it cannot be told."""
        return min(100, 100 * self.done // self.total) if self.total else None

    def left(self, elapsed: float) -> float | None:
        """
        Seconds that it will take from here, if it goes on so.

        @param elapsed: seconds since it began.
        """
        if not self.done or not self.total:
            return None
        return elapsed * max(0, self.total - self.done) / self.done

    def __str__(self) -> str:
        if self.waiting:
            return f"its data are to be restored: {self.waiting}"
        return f"its data are being restored: {self.done} of {self.total or 'unknown'} bytes"


def _number(text: bytes | None) -> int:
    text = (text or b"").strip()
    return int(text) if text.isdigit() and len(text) < 19 else 0
