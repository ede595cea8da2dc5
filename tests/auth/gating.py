"""What tests of the gate share: one issuer whose keys are simply given."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Issuer, Key, Policy, StaticKeys, TokenGate, secret_key
from matrix.auth._jwk import read_key
from matrix.errors import Unauthorized
from matrix.model import Principal
from matrix.testing.issuer import LocalIssuer

SESSION = "6f1f2f0a-8f5e-4c2c-9d2c-0a6b6d3f1e11"


class GateCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        self.issuer = LocalIssuer.open(directory / "issuer", now=self.clock.seconds)
        self.keys = StaticKeys(self.listed())
        self.gate = self.make()

    def make(self, secret: str | None = None, **options: int) -> TokenGate:
        key = None if secret is None else secret_key(secret)
        issuer = Issuer(Policy(issuer=self.issuer.issuer), self.keys, key)
        return TokenGate([issuer], self.clock.seconds, **options)

    def listed(self) -> list[Key]:
        return [read_key(jwk) for jwk in self.issuer.keys.listed()]

    def mint(self, user: str = "alice", **changes: object) -> bytes:
        return self.issuer.mint(user, **changes).encode()

    def outcome(self, token: bytes) -> Deferred[Principal]:
        return Deferred.fromCoroutine(self.gate.verify(token))

    def reason(self, token: bytes) -> str | None:
        """The code of the refusal; C{None} if the token is accepted."""
        outcome = self.outcome(token).addCallbacks(lambda _principal: None, _reason)
        return self.successResultOf(outcome)


def _reason(failure: Failure) -> str | None:
    failure.trap(Unauthorized)
    return failure.value.reason
