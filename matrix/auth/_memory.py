"""In-memory twins: a gate that knows its tokens beforehand, and keys that are simply given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from zope.interface import implementer

from matrix.auth._jwk import Key
from matrix.auth._refusals import Reason, refusal
from matrix.auth.interfaces import IGate, IKeySource
from matrix.errors import Unavailable
from matrix.model import Principal, UserId


@implementer(IGate)
class MemoryGate:
    """A gate for tests: a table of tokens, no keys and no signatures."""

    def __init__(self, tokens: Mapping[bytes, Principal], now: Callable[[], float]) -> None:
        """
        @param tokens: each token that will be accepted, and whom it speaks for.
        @param now: the unix time, in seconds.
        """
        self._tokens = dict(tokens)
        self._now = now
        self._verified: set[bytes] = set()

    def recall(self, token: bytes) -> Principal | None:
        principal = self._tokens[token] if token in self._verified else None
        if principal is not None and self._now() >= principal.expires_at:
            self._verified.discard(token)
            return None
        return principal

    async def verify(self, token: bytes) -> Principal:
        principal = self._tokens.get(token)
        if principal is None:
            raise refusal(Reason.MALFORMED)
        if self._now() >= principal.expires_at:
            raise refusal(Reason.EXPIRED)
        self._verified.add(token)
        return principal

    def forget(self, session_id: str) -> int:
        return self._forget(lambda principal: principal.session_id == session_id)

    def forget_user(self, user_id: UserId) -> int:
        return self._forget(lambda principal: principal.user_id == user_id)

    def _forget(self, meant: Callable[[Principal], bool]) -> int:
        gone = {token for token in self._verified if meant(self._tokens[token])}
        self._verified -= gone
        return len(gone)


@implementer(IKeySource)
class StaticKeys:
    """Keys that are given, and changed, by hand; C{None} for an issuer that is down."""

    def __init__(self, keys: Iterable[Key] | None = ()) -> None:
        self._subscribers: list[Callable[[Mapping[str, Key]], None]] = []
        self.asked = 0
        self.set(keys)

    def set(self, keys: Iterable[Key] | None) -> None:
        """Replace all keys."""
        self._down = keys is None
        self._keys = {key.kid: key for key in keys or ()}
        for changed in self._subscribers:
            changed(self._keys)

    async def find(self, kid: str) -> Key | None:
        self.asked += 1
        if self._down:
            raise Unavailable("The issuer's keys cannot be had now.", reason="keys")
        return self._keys.get(kid)

    def subscribe(self, changed: Callable[[Mapping[str, Key]], None]) -> None:
        self._subscribers.append(changed)
