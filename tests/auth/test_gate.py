"""The gate: each token verified once, remembered within bounds, forgotten with its key."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Key, StaticKeys
from matrix.auth._bars import BAR_LIFE, Bars
from matrix.auth._cache import ENTRY_BYTES, Entry, TokenCache
from matrix.auth._jwk import read_key
from matrix.errors import Unauthorized, Unavailable
from matrix.model import Principal, UserId
from matrix.testing.gate_suite import GateContract
from tests.auth.gating import SESSION, GateCase


class TokenGateContractTests(GateCase, GateContract):
    def setUp(self) -> None:
        super().setUp()
        self.alice = self.mint(session_id=SESSION)
        self.alice_again = self.mint(session_id=SESSION, life=5400)
        self.bob = self.mint("bob")

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class ExpiryTests(GateCase):
    def test_the_leeway_counts_for_a_remembered_token_too(self) -> None:
        token = self.mint(life=60)
        self.successResultOf(self.outcome(token))
        self.clock.advance(60 + 29.5)
        self.assertIsNotNone(self.gate.recall(token))
        self.successResultOf(self.outcome(token))
        self.clock.advance(0.5)
        self.assertIsNone(self.gate.recall(token))
        failure = self.failureResultOf(self.outcome(token), Unauthorized)
        self.assertEqual(failure.value.reason, "expired")

    def test_an_expired_token_leaves_the_memory(self) -> None:
        token = self.mint(life=60)
        self.successResultOf(self.outcome(token))
        self.clock.advance(100)
        self.gate.recall(token)
        self.assertEqual(self.gate.remembered, 0)


class KeyTests(GateCase):
    def test_what_a_key_verified_goes_with_the_key(self) -> None:
        old = self.mint()
        self.successResultOf(self.outcome(old))
        self.issuer.keys.rotate()
        self.keys.set(self.listed())
        new = self.mint()
        self.successResultOf(self.outcome(new))
        self.assertIsNotNone(self.gate.recall(old))
        self.issuer.keys.revoke()
        self.keys.set(self.listed())
        self.assertIsNone(self.gate.recall(old))
        self.assertIsNotNone(self.gate.recall(new))
        failure = self.failureResultOf(self.outcome(old), Unauthorized)
        self.assertEqual(failure.value.reason, "unknown-key")

    def test_other_material_under_the_same_kid_is_another_key(self) -> None:
        token = self.mint()
        self.successResultOf(self.outcome(token))
        (key,) = self.listed()
        self.issuer.keys.rotate()
        self.keys.set([Key(key.kid, "ES256", read_key(self.issuer.keys.listed()[0]).material)])
        self.assertIsNone(self.gate.recall(token))
        failure = self.failureResultOf(self.outcome(token), Unauthorized)
        self.assertEqual(failure.value.reason, "signature")

    def test_the_same_keys_read_again_change_nothing(self) -> None:
        token = self.mint()
        self.successResultOf(self.outcome(token))
        self.keys.set(self.listed())
        self.assertIsNotNone(self.gate.recall(token))

    def test_keys_that_cannot_be_had(self) -> None:
        self.keys.set(None)
        self.failureResultOf(self.outcome(self.mint()), Unavailable)

    def test_what_could_never_be_verified_asks_for_no_key(self) -> None:
        for token in (
            b"nonsense",
            self.mint(alg="none"),
            self.mint(alg="HS256"),
            self.mint(header={"kid": None}),
            self.mint(header={"jku": "https://evil.example"}),
        ):
            self.failureResultOf(self.outcome(token), Unauthorized)
        self.assertEqual(self.keys.asked, 0)


class MemoryTests(GateCase):
    def test_refused_tokens_are_not_remembered(self) -> None:
        for token in (self.mint(role="anon"), self.mint()[:-4] + b"AAAA", b"a.b.c"):
            self.failureResultOf(self.outcome(token), Unauthorized)
            self.assertIsNone(self.gate.recall(token))
        self.assertEqual(self.gate.remembered, 0)

    def test_the_number_is_bounded(self) -> None:
        self.gate = self.make(max_entries=3)
        tokens = [self.mint() for _ in range(5)]
        for token in tokens:
            self.successResultOf(self.outcome(token))
        self.assertEqual(self.gate.remembered, 3)
        known = [self.gate.recall(token) is not None for token in tokens]
        self.assertEqual(known, [False, False, True, True, True])

    def test_the_bytes_are_bounded(self) -> None:
        self.gate = self.make(max_bytes=20_000)
        for _ in range(10):
            token = self.mint(user_metadata={"note": "x" * 3000})
            self.successResultOf(self.outcome(token))
        self.assertEqual(self.gate.remembered, 20_000 // (len(token) + ENTRY_BYTES))

    def test_what_expired_goes_when_others_come(self) -> None:
        for _ in range(10):
            self.successResultOf(self.outcome(self.mint(life=60)))
        self.clock.advance(100)
        for _ in range(6):
            self.successResultOf(self.outcome(self.mint()))
        self.assertEqual(self.gate.remembered, 6)

    def test_an_alias_counts_and_is_bounded_too(self) -> None:
        self.gate = self.make(max_entries=3)
        token = self.mint()
        principal = self.successResultOf(self.outcome(token))
        for number in range(5):
            self.gate.alias(b"handle-%d" % number, token, principal.expires_at)
        self.assertEqual(self.gate.remembered, 3)
        self.assertEqual(self.gate.token_of(principal.session_id), token)

    def test_a_token_larger_than_the_memory_is_still_verified(self) -> None:
        self.gate = self.make(max_bytes=1000)
        self.successResultOf(self.outcome(self.mint()))
        self.assertEqual(self.gate.remembered, 0)

    def test_verifying_twice_remembers_once(self) -> None:
        token = self.mint()
        self.successResultOf(self.outcome(token))
        self.successResultOf(self.outcome(token))
        self.assertEqual(self.gate.remembered, 1)


class TokenCacheTests(SynchronousTestCase):
    def test_no_trace_is_left_of_what_was_dropped(self) -> None:
        """The indexes and the size return to nothing, whichever way the entries went."""
        cache = TokenCache(50, 10**6)
        key = Key("k", "ES256", object())
        for number in range(200):
            user, session = UserId(f"user-{number % 7}"), f"session-{number % 13}"
            cache.put(b"%d" % number, Entry(Principal(user, session, 0.0), 0.0, key))
            if number % 10 == 0:
                cache.drop_user(UserId("user-3"))
                cache.drop_session("session-5")
                cache.drop(b"%d" % number)
        self.assertLessEqual(len(cache), 50)
        cache.keep_only("", [])
        self.assertEqual((len(cache), cache.size), (0, 0))
        self.assertEqual(cache._sessions._tokens, {})
        self.assertEqual(cache._users._tokens, {})


class AliasTests(GateCase):
    def test_an_alias_goes_with_the_key(self) -> None:
        token = self.mint()
        principal = self.successResultOf(self.outcome(token))
        self.gate.alias(b"handle", token, principal.expires_at)
        self.keys.set([])
        self.assertIsNone(self.gate.recall(b"handle"))

    def test_an_alias_of_an_alias_is_one_of_the_token(self) -> None:
        token = self.mint()
        principal = self.successResultOf(self.outcome(token))
        self.gate.alias(b"first", token, principal.expires_at - 60)
        self.gate.alias(b"second", b"first", principal.expires_at)
        self.assertEqual(self.gate.recall(b"second"), principal)
        self.assertEqual(self.gate.token_of(principal.session_id), token)
        self.clock.advance(3541)
        self.assertIsNone(self.gate.recall(b"second"))

    def test_a_token_that_was_an_alias_is_none(self) -> None:
        """Whoever presents a name for a token as a token has to bring a real one."""
        token, other = self.mint(), self.mint("bob")
        principal = self.successResultOf(self.outcome(token))
        self.gate.alias(other, token, principal.expires_at)
        self.assertEqual(
            self.successResultOf(self.outcome(other)).user_id, self.issuer.user("bob").id
        )


class BarTests(GateCase):
    def test_a_token_that_waits_for_keys_meanwhile_is_refused(self) -> None:
        waiting: Deferred[None] = Deferred()

        class Slow(StaticKeys):
            async def find(self, kid: str) -> Key | None:
                await waiting
                return await super().find(kid)

        self.keys = Slow(self.listed())
        self.gate = self.make()
        outcome = self.outcome(self.mint(session_id=SESSION))
        self.gate.bar(SESSION)
        waiting.callback(None)
        failure = self.failureResultOf(outcome, Unauthorized)
        self.assertEqual(failure.value.reason, "revoked")

    def test_a_bar_outlives_every_token_and_then_goes(self) -> None:
        bars = Bars(self.clock.seconds)
        bars.add("old")
        self.clock.advance(BAR_LIFE / 2)
        bars.add("new")
        self.clock.advance(BAR_LIFE / 2)
        bars.add("newest")
        known = [session in bars for session in ("old", "new", "newest")]
        self.assertEqual((known, len(bars)), ([False, True, True], 2))

    def test_barring_again_begins_anew(self) -> None:
        bars = Bars(self.clock.seconds)
        bars.add("session")
        self.clock.advance(BAR_LIFE - 1)
        bars.add("session")
        self.clock.advance(2)
        bars.add("other")
        self.assertIn("session", bars)


class CrowdTests(GateCase):
    def test_many_with_one_token_that_wait_for_the_keys_check_it_once(self) -> None:
        (key,) = self.listed()
        checks: list[bytes] = []

        class Counted(Key):
            def verifies(self, message: bytes, signature: bytes) -> bool:
                checks.append(message)
                return super().verifies(message, signature)

        self.keys.set([Counted(key.kid, key.algorithm, key.material)])
        token = self.mint()
        outcomes = [self.outcome(token) for _ in range(50)]
        self.assertEqual(len({self.successResultOf(outcome) for outcome in outcomes}), 1)
        self.assertEqual(len(checks), 1)
