"""The sign-ins of the directory's in-memory twin."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory._lives import KEPT, LATEST, LONGEST_TOKEN, REVOKED, SLACK, memory_of
from matrix.directory._watchers import Watchers
from matrix.directory.interfaces import AccessWatcher, ISessions
from matrix.model import AccessChange, Session, UserId

Recorder = Callable[[UserId, str, str, Mapping[str, object]], None]
"""Adds an event of a user: its kind, cause and detail; passes over who was never admitted."""


@implementer(ISessions)
class MemorySessions:
    """Sessions in a dictionary. Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(self, clock: IReactorTime, reach: Callable[[], None], recorder: Recorder) -> None:
        """
        @param reach: called first in each awaitable method; raises while there is an outage.
        """
        self._clock = clock
        self._reach = reach
        self._record = recorder
        self._sessions: dict[str, Session] = {}
        self._remembered: dict[str, float] = {}
        """By the id of a revoked session, until when it is remembered (unix seconds)."""
        self.watchers: Watchers[AccessChange] = Watchers()

    async def note(self, seen: Mapping[str, tuple[UserId, float]]) -> None:
        """See L{ISessions.note}."""
        self._reach()
        for session_id, (user_id, expires) in seen.items():
            expires_at = min(expires, LATEST)
            session = self._sessions.get(session_id) or Session(
                session_id, user_id, self._now(), expires_at
            )
            self._sessions[session_id] = replace(
                session,
                user_id=session.user_id or user_id,
                expires_at=max(session.expires_at, expires_at),
            )
            if session_id in self._remembered:
                self._remember(session_id, expires_at)

    async def newest(self, session_ids: Collection[str]) -> Mapping[str, float]:
        """See L{ISessions.newest}."""
        self._reach()
        found = [self._sessions[one] for one in set(session_ids) if one in self._sessions]
        return {one.id: one.expires_at for one in found if one.revoked_at is None}

    async def of_user(self, user_id: UserId, limit: int = 100) -> Sequence[Session]:
        """See L{ISessions.of_user}."""
        self._reach()
        found = [session for session in self._sessions.values() if session.user_id == user_id]
        return sorted(found, key=lambda session: (-session.expires_at, session.id))[:limit]

    async def revoke(
        self, session_id: str, cause: str, user_id: UserId | None = None, *, ended: bool = False
    ) -> Session:
        """See L{ISessions.revoke}."""
        self._reach()
        session = self._sessions.get(session_id) or Session(
            session_id, user_id, self._now(), self._after(LONGEST_TOKEN.total_seconds())
        )
        session = replace(session, user_id=session.user_id or user_id)
        self._remember(session_id, self._after(memory_of(ended).total_seconds()))
        self._sessions[session_id] = session
        if session.revoked_at is None:
            self._bar(session, cause)
            if session.user_id is not None:
                self._record(session.user_id, REVOKED, cause, {"session": session_id})
        return self._sessions[session_id]

    async def revoke_user(self, user_id: UserId, cause: str) -> Sequence[str]:
        """See L{ISessions.revoke_user}."""
        self._reach()
        found = [
            session
            for _, session in sorted(self._sessions.items())
            if session.user_id == user_id and session.revoked_at is None
        ]
        for session in found:
            self._remember(session.id, self._after(memory_of(ended=False).total_seconds()))
            self._bar(session, cause)
        if found:
            self._record(user_id, REVOKED, cause, {"sessions": len(found)})
        self.watchers.tell(AccessChange(user_id=user_id, cause=cause))
        return [session.id for session in found]

    async def revoked(self) -> Collection[str]:
        """See L{ISessions.revoked}."""
        self._reach()
        now = self._clock.seconds()
        return {session_id for session_id, until in self._remembered.items() if until > now}

    async def purge(self) -> int:
        """See L{ISessions.purge}."""
        self._reach()
        now = self._clock.seconds()
        over = [
            session.id
            for session in self._sessions.values()
            if self._remembered.get(session.id, session.expires_at + KEPT.total_seconds()) <= now
        ]
        for session_id in over:
            del self._sessions[session_id]
            self._remembered.pop(session_id, None)
        return len(over)

    def is_revoked(self, session_id: str) -> bool:
        """Whether this session was revoked."""
        session = self._sessions.get(session_id)
        return session is not None and session.revoked_at is not None

    def watch(self, changed: AccessWatcher) -> None:
        """See L{ISessions.watch}."""
        self.watchers.add(changed)

    def _bar(self, session: Session, cause: str) -> None:
        self._sessions[session.id] = replace(session, revoked_at=self._now(), revoke_cause=cause)
        self.watchers.tell(AccessChange(session_id=session.id))

    def _remember(self, session_id: str, until: float) -> None:
        """Never for less than until its own tokens, as far as they are known, have expired."""
        session = self._sessions.get(session_id)
        known = 0.0 if session is None else session.expires_at + SLACK.total_seconds()
        self._remembered[session_id] = max(self._remembered.get(session_id, 0.0), known, until)

    def _after(self, seconds: float) -> float:
        return self._clock.seconds() + seconds

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.seconds(), UTC)
