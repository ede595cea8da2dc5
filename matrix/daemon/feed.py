"""Hands each change to all who follow, and lets those who were away catch up."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Protocol

from matrix.api import dump
from matrix.daemon.changes import Change, Kind
from matrix.daemon.paths import text_of

REMEMBERED = 1024
"""Events kept for readers who come back: a few hundred KB, minutes of an ordinary session.
Whoever was away for longer is told to look again."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change, ready to send."""

    id: str
    name: str
    """C{file}, or C{reset}: look again, some changes cannot be told."""
    data: str
    """JSON."""


class Follower(Protocol):
    """Someone who follows the events. Each method returns at once."""

    def send(self, event: Event) -> None:
        """The next event."""

    def heartbeat(self) -> None:
        """Nothing happened; show the connection alive."""

    def end(self) -> None:
        """There will be no more: the daemon stops."""


class Feed:
    """
    The events of one run of the daemon. An event's id names the run and its number, so
    that an id of an earlier run, or one made up, is recognised.
    """

    def __init__(self, run: str | None = None, remembered: int = REMEMBERED) -> None:
        self._run = run or secrets.token_hex(4)
        self._number = 0
        self._events: deque[Event] = deque(maxlen=remembered)
        self._followers: set[Follower] = set()

    @property
    def last_id(self) -> str:
        """The id of the latest event; of the start if there was none."""
        return f"{self._run}-{self._number}"

    def publish(self, changes: Sequence[Change]) -> None:
        """Tell all who follow."""
        for change in changes:
            self._number += 1
            event = _event(self.last_id, change)
            self._events.append(event)
            for follower in list(self._followers):
                follower.send(event)

    def follow(self, follower: Follower, last_id: str | None = None) -> None:
        """
        Send C{follower} what comes from now on.

        @param last_id: the last event it has seen, to first send those since; if they are
            no longer known, a C{reset}.
        """
        self._followers.add(follower)
        if last_id is not None:
            for event in self._since(last_id):
                follower.send(event)

    def leave(self, follower: Follower) -> None:
        """Send it nothing more."""
        self._followers.discard(follower)

    def heartbeat(self) -> None:
        """To be called regularly."""
        for follower in list(self._followers):
            follower.heartbeat()

    def end(self) -> None:
        """Let go of all who follow."""
        for follower in list(self._followers):
            follower.end()
        self._followers.clear()

    def _since(self, last_id: str) -> list[Event]:
        run, _, number = last_id.partition("-")
        known = number.isascii() and number.isdigit() and len(number) < 19
        missed = self._number - int(number) if run == self._run and known else -1
        if 0 <= missed <= len(self._events):
            return list(islice(self._events, len(self._events) - missed, None))
        return [_event(self.last_id, Change(Kind.RESET, (), _now()))]


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _event(id: str, change: Change) -> Event:
    at = datetime.fromtimestamp(change.at, UTC).isoformat(timespec="milliseconds")
    data = {"kind": str(change.kind), "path": text_of(change.path)}
    if change.source is not None:
        data["from"] = text_of(change.source)
    data |= {"at": at.replace("+00:00", "Z"), "id": id}
    name = "reset" if change.kind is Kind.RESET else "file"
    return Event(id, name, dump(data).decode("utf-8"))
