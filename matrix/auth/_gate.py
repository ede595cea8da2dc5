"""The gate: verifies each token once and remembers it until it expires."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from twisted.logger import Logger
from zope.interface import implementer

from matrix.auth._bars import Bars
from matrix.auth._cache import Entry, TokenCache
from matrix.auth._jwk import SYMMETRIC, Key
from matrix.auth._refusals import Reason, refusal
from matrix.auth._rules import (
    Policy,
    SignedToken,
    check_signature,
    claimed_issuer,
    judge,
    take_apart,
)
from matrix.auth.interfaces import IGate, IKeySource
from matrix.model import Principal, UserId

MAX_ENTRIES = 50_000
"""Tokens remembered: each of as many users' browsers holds one or two at a time."""

MAX_BYTES = 128 * 1024 * 1024
"""Bytes of tokens remembered; reached first only where tokens are unusually long."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class Issuer:
    """One who signs tokens, and on what terms they are accepted."""

    policy: Policy
    keys: IKeySource
    secret: Key | None = field(default=None, repr=False)
    """The key of its legacy secret: HS256 is accepted with this key and no other."""


@implementer(IGate)
class TokenGate:
    """
    Accepts the tokens of one issuer, or of several.

    What a key has verified is forgotten when the key leaves its issuer's set. Only
    verified tokens are remembered, so a forger cannot fill the memory; a forged token is
    checked anew each time, which costs a signature check at most.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        now: Callable[[], float],
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """
        @param issuers: at least one, no two of the same name.
        @param now: the unix time, in seconds: C{time.time}.
        """
        self._issuers = {issuer.policy.issuer: issuer for issuer in issuers}
        if not issuers or len(self._issuers) != len(issuers):
            raise ValueError("a gate needs issuers, each of another name")
        self._only = issuers[0] if len(issuers) == 1 else None
        self._symmetric = any(issuer.secret is not None for issuer in issuers)
        self._now = now
        self._cache = TokenCache(max_entries, max_bytes)
        self._get = self._cache.get
        self._bars = Bars(now)
        self._subscribers: list[Callable[[Principal], None]] = []
        for issuer in issuers:
            issuer.keys.subscribe(partial(self._keys_changed, issuer))

    @property
    def remembered(self) -> int:
        """How many tokens are remembered, aliases included."""
        return len(self._cache)

    @property
    def size(self) -> int:
        """How many bytes that takes, estimated."""
        return self._cache.size

    def recall(self, token: bytes) -> Principal | None:
        entry = self._get(token)
        if entry is None:
            return None
        if self._now() >= entry.deadline:
            self._cache.drop(token)
            return None
        return entry.principal

    async def verify(self, token: bytes) -> Principal:
        signed = take_apart(token, symmetric=self._symmetric)
        issuer = self._only or self._issuer_of(signed)
        key = await self._key_for(signed, issuer)
        # Of many requests that waited for the keys with one token, the first checks it.
        known = self._get(token)
        now = self._now()
        if known is not None and known.token is None and now < known.deadline:
            return known.principal
        policy = issuer.policy
        principal = judge(check_signature(signed, key), policy, now)
        if principal.session_id in self._bars:
            raise refusal(Reason.REVOKED)
        deadline = principal.expires_at + policy.leeway
        self._cache.sweep(now)
        self._cache.put(token, Entry(principal, deadline, key, policy.issuer))
        for verified in self._subscribers:
            verified(principal)
        return principal

    def _issuer_of(self, signed: SignedToken) -> Issuer:
        """Whose token it says it is: by their keys and terms alone it is then judged."""
        issuer = self._issuers.get(claimed_issuer(signed))
        if issuer is None:
            raise refusal(Reason.ISSUER)
        return issuer

    async def _key_for(self, signed: SignedToken, issuer: Issuer) -> Key:
        if signed.algorithm == SYMMETRIC:
            if issuer.secret is None:
                raise refusal(Reason.ALGORITHM)
            return issuer.secret
        key = await issuer.keys.find(signed.kid)
        if key is None:
            raise refusal(Reason.UNKNOWN_KEY)
        return key

    def forget(self, session_id: str) -> int:
        return self._cache.drop_session(session_id)

    def forget_user(self, user_id: UserId) -> int:
        return self._cache.drop_user(user_id)

    def sessions_of(self, user_id: UserId) -> Collection[str]:
        return self._cache.sessions_of(user_id)

    def subscribe(self, verified: Callable[[Principal], None]) -> None:
        self._subscribers.append(verified)

    def newest(self, session_id: str) -> float:
        return self._cache.newest(session_id)[0]

    def token_of(self, session_id: str) -> bytes | None:
        return self._cache.newest(session_id)[1]

    def bar(self, session_id: str) -> int:
        self._bars.add(session_id)
        return self._cache.drop_session(session_id)

    def bar_all(self, session_ids: Collection[str]) -> int:
        self._bars.replace(session_ids)
        return sum(map(self._cache.drop_session, session_ids))

    def alias(self, handle: bytes, token: bytes, until: float) -> None:
        entry = self._get(token)
        if entry is not None:
            deadline = min(until, entry.deadline)
            self._cache.put(handle, replace(entry, deadline=deadline, token=entry.token or token))

    def _keys_changed(self, issuer: Issuer, keys: Mapping[str, Key]) -> None:
        kept = list(keys.values())
        if issuer.secret is not None:
            kept.append(issuer.secret)
        dropped = self._cache.keep_only(issuer.policy.issuer, kept)
        if dropped:
            _log.info("{dropped} tokens forgotten: their key is gone", dropped=dropped)
