"""The gate: verifies each token once and remembers it until it expires."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.logger import Logger
from zope.interface import implementer

from matrix.auth._cache import Entry, TokenCache
from matrix.auth._jwk import Key
from matrix.auth._refusals import Reason, refusal
from matrix.auth._rules import Policy, check_signature, judge, take_apart
from matrix.auth.interfaces import IGate, IKeySource
from matrix.model import Principal, UserId

MAX_ENTRIES = 50_000
"""Tokens remembered: each of as many users' browsers holds one or two at a time."""

MAX_BYTES = 128 * 1024 * 1024
"""Bytes of tokens remembered; reached first only where tokens are unusually long."""

_log = Logger()


@implementer(IGate)
class TokenGate:
    """
    Accepts the tokens of one issuer.

    What a key has verified is forgotten when the key leaves the issuer's set. Only
    verified tokens are remembered, so a forger cannot fill the memory; a forged token is
    checked anew each time, which costs a signature check at most.
    """

    def __init__(
        self,
        keys: IKeySource,
        policy: Policy,
        now: Callable[[], float],
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """
        @param now: the unix time, in seconds: C{time.time}.
        """
        self._keys = keys
        self._policy = policy
        self._now = now
        self._cache = TokenCache(max_entries, max_bytes)
        self._get = self._cache.get
        keys.subscribe(self._keys_changed)

    @property
    def remembered(self) -> int:
        """How many tokens are remembered."""
        return len(self._cache)

    def recall(self, token: bytes) -> Principal | None:
        entry = self._get(token)
        if entry is None:
            return None
        if self._now() >= entry.deadline:
            self._cache.drop(token)
            return None
        return entry.principal

    async def verify(self, token: bytes) -> Principal:
        signed = take_apart(token)
        key = await self._keys.find(signed.kid)
        if key is None:
            raise refusal(Reason.UNKNOWN_KEY)
        # Of many requests that waited for the keys with one token, the first checks it.
        known = self.recall(token)
        if known is not None:
            return known
        principal = judge(check_signature(signed, key), self._policy, self._now())
        deadline = principal.expires_at + self._policy.leeway
        self._cache.put(token, Entry(principal, deadline, key))
        return principal

    def forget(self, session_id: str) -> int:
        return self._cache.drop_session(session_id)

    def forget_user(self, user_id: UserId) -> int:
        return self._cache.drop_user(user_id)

    def _keys_changed(self, keys: Mapping[str, Key]) -> None:
        dropped = self._cache.keep_only(keys)
        if dropped:
            _log.info("{dropped} tokens forgotten: their key is gone", dropped=dropped)
