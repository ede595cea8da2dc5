"""What signs a user of the local issuer in and keeps them so: sessions and one-time codes."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

REUSE_INTERVAL = 10.0
"""Seconds after a refresh in which an older refresh token still works, as Supabase's default:
tabs that wake together all refresh with the token they know."""

CODE_LIFE = 3600.0
"""Seconds for which a one-time code is good."""

CODE_DIGITS = 6
"""As Supabase's default."""


class Refusal(Exception):
    """An answer of Supabase Auth's error table (facts/supabase.md section 4)."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class Session:
    """A sign-in that goes on."""

    id: str
    name: str
    """The user's."""
    method: str
    """How the user signed in, as C{amr} names it."""
    began: float
    """Unix time, seconds, as all times here."""
    refreshed_at: float
    refresh_tokens: list[str] = field(default_factory=list, repr=False)
    """All there ever were, the current one last."""


class Sessions:
    """Sessions, each renewed by the latest of its refresh tokens."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._live: dict[str, Session] = {}
        self._by_token: dict[str, Session] = {}
        self.ended: set[str] = set()
        """Ids of those that are over; their access tokens stay valid until they expire."""

    def begin(self, name: str, method: str) -> Session:
        """A user has signed in."""
        now = self._now()
        session = Session(str(uuid4()), name, method, now, now)
        self._live[session.id] = session
        self._rotate(session)
        return session

    def find(self, refresh_token: str) -> Session:
        """
        The session of a refresh token, which need not be its latest.

        @raise Refusal: there is none, or it is over.
        """
        session = self._by_token.get(refresh_token)
        if session is None:
            raise Refusal(
                400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found"
            )
        return session

    def refresh(self, refresh_token: str) -> Session:
        """
        Renew a session. The latest refresh token is replaced. The one before it gives the
        latest again, whenever it comes: its client did not get the answer. So does each older
        one within L{REUSE_INTERVAL} of a refresh; later that is a theft, and ends the session.

        @raise Refusal: there is no such session any more.
        """
        session = self.find(refresh_token)
        behind = len(session.refresh_tokens) - 1 - session.refresh_tokens.index(refresh_token)
        lately = self._now() - session.refreshed_at < REUSE_INTERVAL
        if behind > 1 and not lately:
            self.end(session.id)
            raise Refusal(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")
        if behind == 0:
            self._rotate(session)
        session.refreshed_at = self._now()
        return session

    def sign_out(self, name: str, session_id: str, scope: str) -> None:
        """
        End sessions of a user: C{local} this one, C{others} all but this one, C{global} all.
        """
        own = {known.id for known in self._live.values() if known.name == name}
        ended = {"local": {session_id}, "others": own - {session_id}}.get(scope, own | {session_id})
        for known in ended:
            self.end(known)

    def end(self, session_id: str) -> None:
        """End one session, known or not: none of its refresh tokens works any more."""
        self.ended.add(session_id)
        session = self._live.pop(session_id, None)
        for token in session.refresh_tokens if session is not None else ():
            del self._by_token[token]

    def _rotate(self, session: Session) -> None:
        token = secrets.token_urlsafe(9)
        session.refresh_tokens.append(token)
        self._by_token[token] = session


class Codes:
    """
    One-time codes, "mailed" into one file for each address, where any process that may read
    the issuer's directory finds the latest.
    """

    def __init__(self, directory: Path, now: Callable[[], float]) -> None:
        self._directory = directory
        self._now = now
        self._sent: dict[str, tuple[str, float]] = {}
        self.interval = 0.0
        """Seconds between two codes for one address; Supabase has 60."""

    def send(self, email: str) -> str:
        """
        Mail a new code; the one before is good no more.

        @raise Refusal: the last one is too young.
        """
        wait = self._sent.get(email, ("", -self.interval))[1] + self.interval - self._now()
        if wait > 0:
            raise Refusal(
                429,
                "over_email_send_rate_limit",
                f"For security purposes, you can only request this after {wait:.0f} seconds.",
            )
        code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}d}"
        self._sent[email] = code, self._now()
        self._directory.mkdir(mode=0o700, exist_ok=True)
        path = self._path(email)
        scratch = path.with_name(f"{path.name}.{os.getpid()}")
        with open(scratch, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(code)
        scratch.replace(path)
        return code

    def received(self, email: str) -> str:
        """
        The latest code that was mailed, used or not.

        @raise FileNotFoundError: none was.
        """
        return self._path(email).read_text()

    def redeem(self, email: str, code: str) -> bool:
        """Whether this is the address's code; it is used up then."""
        expected, sent_at = self._sent.get(email, ("", 0.0))
        if not hmac.compare_digest(code.encode(), expected.encode()) or not expected:
            return False
        # A used code stays remembered without its digits, for the sake of the interval.
        self._sent[email] = "", sent_at
        return self._now() - sent_at < CODE_LIFE

    def _path(self, email: str) -> Path:
        return self._directory / quote(email, safe="@+")
