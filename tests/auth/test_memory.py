"""The in-memory twins keep the contracts of what they stand in for."""

from dataclasses import replace
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from matrix.auth import IKeySource, Key, MemoryGate, StaticKeys
from matrix.errors import Unavailable
from matrix.model import Principal, user_id
from matrix.testing.gate_suite import GateContract


class MemoryGateTests(GateContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.alice, self.alice_again, self.bob = b"alice", b"alice-again", b"bob"
        alice = Principal(user_id(str(uuid4())), str(uuid4()), 3600.0)
        bob = Principal(user_id(str(uuid4())), str(uuid4()), 3600.0)
        again = replace(alice, expires_at=5400.0)
        tokens = {self.alice: alice, self.alice_again: again, self.bob: bob}
        self.gate = MemoryGate(tokens, self.clock.seconds)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class StaticKeysTests(SynchronousTestCase):
    def find(self, keys: StaticKeys, kid: str) -> Deferred[Key | None]:
        return Deferred.fromCoroutine(keys.find(kid))

    def test_provides_the_interface(self) -> None:
        verifyObject(IKeySource, StaticKeys())

    def test_finds_what_was_given(self) -> None:
        key = Key("k", "ES256", object())
        keys = StaticKeys([key])
        self.assertIs(self.successResultOf(self.find(keys, "k")), key)
        self.assertIsNone(self.successResultOf(self.find(keys, "other")))
        self.assertEqual(keys.asked, 2)

    def test_plays_an_issuer_that_is_down(self) -> None:
        self.failureResultOf(self.find(StaticKeys(None), "k"), Unavailable)

    def test_tells_subscribers_of_a_change(self) -> None:
        keys, seen = StaticKeys(), []
        keys.subscribe(seen.append)
        key = Key("k", "ES256", object())
        keys.set([key])
        self.assertEqual(seen, [{"k": key}])
