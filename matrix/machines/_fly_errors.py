"""What Fly's refusals mean: whether to go on, try again, look first, or give up. Pure.

The catalogue is facts/fly.md section 5. Fly's texts are matched where its statuses say too
little, and whatever is in no row is judged by its status alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from matrix.machines.interfaces import ProviderError


class Verdict(StrEnum):
    """What a refusal asks of the caller."""

    DONE = "done"
    """It is as was asked for, or on its way there."""
    SOON = "soon"
    """The same call may succeed within seconds."""
    AMBIGUOUS = "ambiguous"
    """It may have been done: look before asking again."""
    NO_CAPACITY = "no-capacity"
    """Not here, not now: another size, region or host, or minutes of patience."""
    PERMANENT = "permanent"
    """Asking again changes nothing."""


class Action(StrEnum):
    """What was asked for: the same text can mean different things."""

    CREATE = "create"
    UPDATE = "update"
    START = "start"
    STOP = "stop"
    SUSPEND = "suspend"
    DESTROY = "destroy"
    WAIT = "wait"
    READ = "read"
    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    LEASE = "lease"
    OTHER = "other"


class FlyError(ProviderError):
    """Fly refused. The text holds no secret: of our request nothing, of its answer the error."""

    def __init__(
        self,
        verdict: Verdict,
        reason: str,
        text: str,
        *,
        status: int = 0,
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        """
        @param reason: a stable code, finer than the verdict.
        @param status: of the answer; 0 if there was none.
        @param request_id: Fly's, for its support.
        """
        super().__init__(text, retry_after=retry_after)
        self.verdict = verdict
        self.reason = reason
        self.status = status
        self.request_id = request_id


class _Row(NamedTuple):
    statuses: tuple[int, ...]
    text: str
    """A pattern searched for in Fly's text and code, in lower case; empty for any."""
    verdict: Verdict
    reason: str
    actions: frozenset[Action] = frozenset()
    """Those that the row is about; all if empty."""

    def is_about(self, action: Action, status: int) -> bool:
        """Whether the row may be meant, going by what was asked for and the status."""
        return status in self.statuses and (not self.actions or action in self.actions)


def _only(*actions: Action) -> frozenset[Action]:
    return frozenset(actions)


_DONE, _SOON, _LOOK = Verdict.DONE, Verdict.SOON, Verdict.AMBIGUOUS
_FULL, _NEVER = Verdict.NO_CAPACITY, Verdict.PERMANENT

CATALOGUE: tuple[_Row, ...] = (
    # success in disguise
    _Row((409,), r"still attempting to start", _DONE, "starting", _only(Action.START)),
    _Row((409, 412), r"already (?:started|running)|current state: '?started",
         _DONE, "started", _only(Action.START)),
    _Row((404,), r"", _DONE, "gone", _only(Action.DESTROY)),
    _Row((412,), r"snapshot is already scheduled", _DONE, "scheduled", _only(Action.SNAPSHOT)),
    # transient
    _Row((408,), r"", _SOON, "not-reached", _only(Action.WAIT)),
    _Row((412,), r"unable to start machine from current state: '?(?:created|replacing|stopping|"
         r"suspending|starting|updating)", _SOON, "in-transition"),
    _Row((412,), r"still active, refusing to start", _SOON, "still-active"),
    _Row((412,), r"getting replaced", _SOON, "replacing"),
    _Row((409,), r"concurrent update", _SOON, "concurrent-update"),
    _Row((409,), r"lease currently held", _SOON, "leased"),
    _Row((412,), r"volume already claimed by machine[ :]*['\"]?[\0\s]*['\"]?(?:$|[,.])",
         _SOON, "volume-claimed-by-nobody"),
    _Row((429,), r"", _SOON, "rate"),
    # to be looked at
    _Row((409,), r"unique machine name violation", _LOOK, "name-taken"),
    _Row((412,), r"machine_version", _LOOK, "stale-version"),
    # capacity
    _Row((409,), r"could not reserve resource|insufficient resources|no capacity|"
         r"governor policy blocked|deploys to this host are temporarily disabled",
         _FULL, "host-full"),
    _Row((422,), r"insufficient_capacity|could not find a candidate host", _FULL, "region-full"),
    _Row((412,), r"volume_placement_capacity|insufficient resources to create new machine with "
         r"existing volume", _FULL, "volume-host-full"),
    _Row((400,), r"no capacity", _FULL, "no-room-for-volume"),
    # permanent
    _Row((404,), r"", _NEVER, "not-found"),
    _Row((400,), r"volume not found", _NEVER, "volume-not-found"),
    _Row((412,), r"volume already claimed by machine", _NEVER, "volume-claimed"),
    _Row((412,), r"volume is currently bound to machine", _NEVER, "volume-bound"),
    _Row((422,), r"name_taken", _NEVER, "app-name-taken"),
    _Row((403,), r"over the allowed quota", _NEVER, "quota"),
    _Row((401, 403), r"", _NEVER, "credentials"),
    _Row((422,), r"", _NEVER, "limit"),
    _Row((400,), r"", _NEVER, "malformed"),
)  # fmt: skip
"""The rows of the facts, those that say more before those that say less."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of Fly's that is no success."""

    status: int
    text: str
    """What it says, shortened; for people."""
    code: str = ""
    """Its C{status} member."""

    @classmethod
    def read(cls, status: int, body: bytes) -> Refusal:
        """An answer's meaning; its body may be anything."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            return cls(status, body[:200].decode("utf-8", "replace").strip() or "no text")
        text = document.get("error") or document.get("message") or "no text"
        code = document.get("status")
        return cls(status, str(text)[:500], code if isinstance(code, str) else "")


def judge(action: Action, refusal: Refusal) -> tuple[Verdict, str]:
    """What a refusal means for an action, and the stable code of why."""
    said = f"{refusal.code} {refusal.text}".lower()
    for row in CATALOGUE:
        if row.is_about(action, refusal.status) and re.search(row.text, said):
            return row.verdict, row.reason
    if refusal.status == 408 or refusal.status >= 500:
        return _unsure(action), "unavailable"
    if refusal.status in (409, 412):
        return Verdict.SOON, "conflict"
    return Verdict.PERMANENT, "unknown"


def unheard(action: Action, sent: bool) -> Verdict:
    """
    What it means that no answer came.

    @param sent: whether any of the request may have reached Fly.
    """
    return _unsure(action) if sent else Verdict.SOON


def _unsure(action: Action) -> Verdict:
    # What only reads, or is the same when done twice, needs no look before.
    return Verdict.SOON if action in (Action.READ, Action.WAIT) else Verdict.AMBIGUOUS
