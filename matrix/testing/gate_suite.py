"""The contract of L{IGate} as tests: every implementation passes all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from matrix.auth import IGate
from matrix.errors import Unauthorized
from matrix.model import Principal

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _Case
else:
    _Case = object


class GateContract(_Case):
    """
    Mix into a trial C{SynchronousTestCase} whose C{setUp} sets L{gate} and, by what it
    accepts, the three tokens.
    """

    gate: IGate
    alice: bytes
    """A token of alice, valid for an hour."""
    alice_again: bytes
    """Another token of the same session, valid for half an hour longer."""
    bob: bytes
    """A token of bob."""

    def advance(self, seconds: float) -> None:
        """Let the gate's time pass."""
        raise NotImplementedError

    def verified(self, token: bytes) -> Principal:
        """The principal of a token that the gate must accept at once."""
        return self.successResultOf(Deferred.fromCoroutine(self.gate.verify(token)))

    def refused(self, token: bytes) -> Unauthorized:
        """The refusal of a token that the gate must not accept."""
        outcome = Deferred.fromCoroutine(self.gate.verify(token))
        failure = self.failureResultOf(outcome, Unauthorized)  # type: ignore[no-untyped-call]
        error: Unauthorized = failure.value
        return error

    def test_provides_the_interface(self) -> None:
        verifyObject(IGate, self.gate)

    def test_knows_no_token_at_first(self) -> None:
        assert self.gate.recall(self.alice) is None
        assert self.gate.recall(b"") is None

    def test_recalls_what_it_verified(self) -> None:
        principal = self.verified(self.alice)
        assert self.gate.recall(self.alice) == principal
        # The next request brings the same token in other memory.
        assert self.gate.recall(bytes(bytearray(self.alice))) == principal
        assert self.gate.recall(self.bob) is None

    def test_tells_users_and_sessions_apart(self) -> None:
        first, second, third = map(self.verified, (self.alice, self.alice_again, self.bob))
        assert first.session_id == second.session_id
        assert first.user_id == second.user_id
        assert first.session_id != third.session_id
        assert first.user_id != third.user_id

    def test_refuses_what_is_no_token(self) -> None:
        for token in (b"", b"x", b"\xff.\x00.,", self.alice + b"?", b"a" * 100_000):
            error = self.refused(token)
            assert error.reason == "malformed", token[:20]
            assert self.gate.recall(token) is None

    def test_every_refusal_has_a_challenge(self) -> None:
        challenge = dict(self.refused(b"x").headers)[b"www-authenticate"]
        assert challenge.startswith(b'Bearer realm="matrix", error="invalid_token"')

    def test_recalls_nothing_that_expired(self) -> None:
        self.verified(self.alice)
        self.advance(2 * 3600)
        assert self.gate.recall(self.alice) is None
        assert self.refused(self.alice).reason == "expired"

    def test_forgets_a_session(self) -> None:
        first = self.verified(self.alice)
        self.verified(self.alice_again)
        self.verified(self.bob)
        assert self.gate.forget(first.session_id) == 2
        assert self.gate.recall(self.alice) is None
        assert self.gate.recall(self.alice_again) is None
        assert self.gate.recall(self.bob) is not None
        assert self.gate.forget(first.session_id) == 0

    def test_forgets_a_user(self) -> None:
        first = self.verified(self.alice)
        self.verified(self.alice_again)
        self.verified(self.bob)
        assert self.gate.forget_user(first.user_id) == 2
        assert self.gate.recall(self.alice) is None
        assert self.gate.recall(self.bob) is not None
        assert self.gate.forget_user(first.user_id) == 0

    def test_tells_a_users_sessions(self) -> None:
        first = self.verified(self.alice)
        self.verified(self.alice_again)
        other = self.verified(self.bob)
        assert set(self.gate.sessions_of(first.user_id)) == {first.session_id}
        self.gate.forget(first.session_id)
        assert set(self.gate.sessions_of(first.user_id)) == set()
        assert set(self.gate.sessions_of(other.user_id)) == {other.session_id}

    def test_verifies_again_what_it_forgot(self) -> None:
        principal = self.verified(self.alice)
        self.gate.forget(principal.session_id)
        assert self.verified(self.alice) == principal
        assert self.gate.recall(self.alice) == principal

    def test_tells_of_each_token_once(self) -> None:
        seen: list[Principal] = []
        self.gate.subscribe(seen.append)
        principal = self.verified(self.alice)
        self.gate.recall(self.alice)
        self.verified(self.alice)
        self.refused(b"x")
        assert seen == [principal]
        self.verified(self.alice_again)
        assert len(seen) == 2

    def test_knows_until_when_a_session_is_good(self) -> None:
        session = self.verified(self.alice_again).session_id
        later = self.gate.newest(session)
        earlier = self.verified(self.alice).expires_at
        assert self.gate.newest(session) == later == earlier + 1800
        assert self.gate.token_of(session) == self.alice_again
        self.gate.forget(session)
        assert self.gate.newest(session) == 0.0
        assert self.gate.token_of(session) is None
        assert self.gate.newest("nobody's") == 0.0

    def test_bars_a_session(self) -> None:
        session = self.verified(self.alice).session_id
        self.verified(self.bob)
        assert self.gate.bar(session) == 1
        assert self.gate.recall(self.alice) is None
        assert self.refused(self.alice).reason == "revoked"
        assert self.refused(self.alice_again).reason == "revoked"
        assert self.gate.recall(self.bob) is not None
        assert self.gate.bar(session) == 0

    def test_bars_exactly_the_named_sessions(self) -> None:
        alice, bob = self.verified(self.alice).session_id, self.verified(self.bob).session_id
        self.gate.bar(alice)
        assert self.gate.bar_all([bob]) == 1
        assert self.gate.recall(self.bob) is None
        assert self.refused(self.bob).reason == "revoked"
        self.verified(self.alice)
        assert self.gate.bar_all([]) == 0
        self.verified(self.bob)
        assert self.gate.recall(self.alice) is not None

    def test_an_alias_is_recalled_like_its_token(self) -> None:
        principal = self.verified(self.alice)
        self.gate.alias(b"handle", self.alice, principal.expires_at - 60)
        assert self.gate.recall(b"handle") == principal
        assert self.gate.newest(principal.session_id) == principal.expires_at
        assert self.gate.token_of(principal.session_id) == self.alice

    def test_an_alias_ends_when_it_was_told_to(self) -> None:
        principal = self.verified(self.alice)
        self.gate.alias(b"handle", self.alice, principal.expires_at - 60)
        self.advance(3541)
        assert self.gate.recall(b"handle") is None
        assert self.gate.recall(self.alice) == principal

    def test_an_alias_ends_with_its_token(self) -> None:
        principal = self.verified(self.alice)
        self.gate.alias(b"handle", self.alice, principal.expires_at + 86400)
        self.advance(2 * 3600)
        assert self.gate.recall(b"handle") is None

    def test_an_alias_goes_with_its_session_and_its_user(self) -> None:
        principal = self.verified(self.alice)
        forgetting: tuple[Callable[[], int], ...] = (
            lambda: self.gate.forget(principal.session_id),
            lambda: self.gate.forget_user(principal.user_id),
            lambda: self.gate.bar(principal.session_id),
        )
        for forget in forgetting:
            self.verified(self.alice)
            self.gate.alias(b"handle", self.alice, principal.expires_at)
            forget()
            assert self.gate.recall(b"handle") is None

    def test_an_alias_may_change_its_token(self) -> None:
        principal = self.verified(self.alice)
        self.gate.alias(b"handle", self.alice, principal.expires_at - 60)
        newer = self.verified(self.alice_again)
        self.gate.alias(b"handle", self.alice_again, newer.expires_at - 60)
        self.advance(3600 + 100)
        assert self.gate.recall(b"handle") == newer

    def test_an_alias_needs_a_remembered_token_and_is_none(self) -> None:
        self.gate.alias(b"handle", self.alice, 4e9)
        assert self.gate.recall(b"handle") is None
        principal = self.verified(self.alice)
        self.gate.alias(b"handle", self.alice, principal.expires_at)
        assert self.refused(b"handle").reason == "malformed"
