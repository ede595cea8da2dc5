"""A day of an issuer played through second by second: rotation, outage, revocation, a flood."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

from twisted.internet.defer import Deferred

from matrix.auth import Issuer, Policy, TokenGate
from matrix.errors import Unauthorized, Unavailable
from matrix.model import Principal
from matrix.testing.issuer import LocalIssuer
from tests.auth.asking import KeysCase

STEP = 5.0
"""Seconds between two users who come with a new token."""


class DayTests(KeysCase):
    """A new user comes every few seconds, and must never be refused or kept waiting."""

    def setUp(self) -> None:
        super().setUp()
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        self.local = LocalIssuer.open(directory, now=self.now)
        self.gate = TokenGate([Issuer(Policy(self.local.issuer), self.keys)], self.now)
        self.outage = False
        self.flood = False
        self.keys.start()
        self.answer()

    def answer(self) -> None:
        while self.issuer.waiting:
            if self.outage:
                self.issuer.fail()
            else:
                self.issuer.serve(*self.local.keys.listed())

    def verify(self, token: str) -> Deferred[Principal]:
        return Deferred.fromCoroutine(self.gate.verify(token.encode()))

    def forge(self) -> None:
        for _ in range(3):
            forged = self.local.mint("bob", header={"kid": str(uuid4())})
            self.verify(forged).addErrback(lambda f: f.trap(Unauthorized, Unavailable))

    def let_pass(self, seconds: float, *tokens: str) -> None:
        """Users come meanwhile, with a new token each and with these."""
        for _ in range(int(seconds / STEP)):
            self.clock.advance(STEP)
            if self.flood:
                self.forge()
            # Before the issuer answers: nobody may have to wait for that.
            for token in (self.local.mint("alice"), *tokens):
                self.successResultOf(self.verify(token))
            self.answer()

    def refused_within(self, token: str, seconds: float) -> None:
        began = self.clock.seconds()
        while self.clock.seconds() - began <= seconds:
            known = self.gate.recall(token.encode())
            if known is None:
                failure = self.failureResultOf(self.verify(token), Unauthorized)
                self.assertEqual(failure.value.reason, "unknown-key")
                return
            self.let_pass(STEP)
        self.fail(f"still accepted after {seconds} s")

    def rotate(self) -> str:
        """As the issuer's guide has it; a token of the old key that is still good."""
        self.local.keys.prepare()
        self.let_pass(20 * 60)
        old = self.local.mint("alice")
        self.local.keys.rotate()
        self.let_pass(20 * 60, old)
        return old

    def test_a_rotation(self) -> None:
        old = self.rotate()
        self.local.keys.revoke()
        self.refused_within(old, 600)
        self.let_pass(1200)

    def test_a_rotation_under_a_flood(self) -> None:
        self.flood = True
        before = self.keys.fetches
        began = self.clock.seconds()
        old = self.rotate()
        self.local.keys.revoke()
        self.refused_within(old, 600)
        most = (self.clock.seconds() - began) / 30 + 1
        self.assertLessEqual(self.keys.fetches - before, most)

    def test_an_outage_of_most_of_an_hour(self) -> None:
        self.let_pass(600)
        self.outage = True
        self.let_pass(50 * 60)
        self.outage = False
        self.let_pass(600)
        self.assertEqual(self.keys.outcomes["unusable"], 0)
        self.assertGreater(self.keys.failures, 50)

    def test_an_outage_while_the_standby_key_is_known(self) -> None:
        self.local.keys.prepare()
        self.let_pass(600)
        self.outage = True
        self.let_pass(600)
        self.local.keys.rotate()
        self.let_pass(1800)
