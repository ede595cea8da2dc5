"""In-memory twins: a gate that knows its tokens beforehand, and keys that are simply given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

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
        self._aliases: dict[bytes, tuple[bytes, float]] = {}
        self._barred: set[str] = set()
        self._subscribers: list[Callable[[Principal], None]] = []

    def recall(self, token: bytes) -> Principal | None:
        token, until = self._aliases.get(token, (token, float("inf")))
        principal = self._tokens[token] if token in self._verified else None
        if principal is not None and self._now() >= principal.expires_at:
            self._verified.discard(token)
            return None
        return principal if self._now() < until else None

    async def verify(self, token: bytes) -> Principal:
        principal = self._tokens.get(token)
        if principal is None:
            raise refusal(Reason.MALFORMED)
        if self._now() >= principal.expires_at:
            raise refusal(Reason.EXPIRED)
        if principal.session_id in self._barred:
            raise refusal(Reason.REVOKED)
        if token not in self._verified:
            self._verified.add(token)
            for verified in self._subscribers:
                verified(principal)
        return principal

    def accept(self, token: bytes, principal: Principal) -> None:
        """Know one more token beforehand."""
        self._tokens[token] = principal

    def forget(self, session_id: str) -> int:
        return self._forget(lambda principal: principal.session_id == session_id)

    def forget_user(self, user_id: UserId) -> int:
        return self._forget(lambda principal: principal.user_id == user_id)

    def sessions_of(self, user_id: UserId) -> Collection[str]:
        known = (self._tokens[token] for token in self._verified)
        return {principal.session_id for principal in known if principal.user_id == user_id}

    def subscribe(self, verified: Callable[[Principal], None]) -> None:
        self._subscribers.append(verified)

    def newest(self, session_id: str) -> float:
        token = self.token_of(session_id)
        return self._tokens[token].expires_at if token is not None else 0.0

    def token_of(self, session_id: str) -> bytes | None:
        mine = [token for token in self._verified if self._tokens[token].session_id == session_id]
        return max(mine, key=lambda token: self._tokens[token].expires_at, default=None)

    def bar(self, session_id: str) -> int:
        self._barred.add(session_id)
        return self.forget(session_id)

    def bar_all(self, session_ids: Collection[str]) -> int:
        self._barred = set(session_ids)
        return sum(map(self.forget, session_ids))

    def alias(self, handle: bytes, token: bytes, until: float) -> None:
        if token in self._verified:
            self._aliases[handle] = token, until

    def _forget(self, meant: Callable[[Principal], bool]) -> int:
        gone = {token for token in self._verified if meant(self._tokens[token])}
        self._verified -= gone
        self._aliases = {
            handle: known for handle, known in self._aliases.items() if known[0] not in gone
        }
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
