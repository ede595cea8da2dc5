"""Tokens that were verified, remembered until they expire: bounded in number and in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from matrix.auth._jwk import Key
from matrix.model import Principal, UserId

ENTRY_BYTES = 1200
"""What an entry costs beyond its token: principal, key reference, three table slots."""

SWEEP = 2
"""Expired entries dropped for each that is added: more than one, so that they run out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A verified token's result."""

    principal: Principal
    deadline: float
    """Unix time, seconds, from which the token is refused."""
    key: Key
    issuer: str = ""
    """Whose key it is: two issuers may use the same key id."""
    token: bytes | None = None
    """The token, where the entry is kept under another name; C{None} under its own."""


class _Index:
    """Which tokens belong to a session, or to a user."""

    def __init__(self) -> None:
        self._tokens: dict[str, set[bytes]] = {}

    def add(self, owner: str, token: bytes) -> None:
        self._tokens.setdefault(owner, set()).add(token)

    def discard(self, owner: str, token: bytes) -> None:
        tokens = self._tokens.get(owner)
        if tokens is not None:
            tokens.discard(token)
            if not tokens:
                del self._tokens[owner]

    def of(self, owner: str) -> tuple[bytes, ...]:
        return tuple(self._tokens.get(owner, ()))


class TokenCache:
    """
    Verified tokens by their bytes, and other names for them.

    When full, the oldest entry goes first: tokens of one issuer live equally long, so the
    oldest is also the one that expires soonest, and a look-up need not move anything.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._sessions = _Index()
        self._users = _Index()
        self.get = self._entries.get
        self.size = 0
        """Bytes, estimated."""

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, token: bytes, entry: Entry) -> None:
        """Remember a token, forgetting the oldest where a bound is reached."""
        self.drop(token)
        self._entries[token] = entry
        self._sessions.add(entry.principal.session_id, token)
        self._users.add(entry.principal.user_id, token)
        self.size += len(token) + ENTRY_BYTES
        while len(self._entries) > self._max_entries or self.size > self._max_bytes:
            self.drop(next(iter(self._entries)))

    def sweep(self, now: float) -> None:
        """Forget some of what has expired, so that it goes even where no bound is reached."""
        for _ in range(SWEEP):
            token = next(iter(self._entries), None)
            if token is None or self._entries[token].deadline > now:
                return
            self.drop(token)

    def newest(self, session_id: str) -> tuple[float, bytes | None]:
        """The session's token that expires last, and its C{exp}; 0.0 and C{None} without one."""
        latest: float = 0.0
        found: bytes | None = None
        for token in self._sessions.of(session_id):
            entry = self._entries[token]
            if found is None or entry.principal.expires_at > latest:
                latest, found = entry.principal.expires_at, entry.token or token
        return latest, found

    def sessions_of(self, user_id: UserId) -> set[str]:
        """The sessions of a user's tokens."""
        return {self._entries[one].principal.session_id for one in self._users.of(user_id)}

    def drop(self, token: bytes) -> None:
        """Forget one token; nothing happens if it is not known."""
        entry = self._entries.pop(token, None)
        if entry is None:
            return
        self.size -= len(token) + ENTRY_BYTES
        self._sessions.discard(entry.principal.session_id, token)
        self._users.discard(entry.principal.user_id, token)

    def drop_session(self, session_id: str) -> int:
        """Forget a session's tokens; how many there were."""
        return self._drop_all(self._sessions.of(session_id))

    def drop_user(self, user_id: UserId) -> int:
        """Forget a user's tokens; how many there were."""
        return self._drop_all(self._users.of(user_id))

    def keep_only(self, issuer: str, keys: Collection[Key]) -> int:
        """Forget what any other key of the issuer verified, one with the same id included;
        how many."""
        kept = {id(key) for key in keys}
        doubtful = [
            token
            for token, entry in self._entries.items()
            if entry.issuer == issuer and id(entry.key) not in kept and entry.key not in keys
        ]
        return self._drop_all(doubtful)

    def _drop_all(self, tokens: list[bytes] | tuple[bytes, ...]) -> int:
        for token in tokens:
            self.drop(token)
        return len(tokens)
