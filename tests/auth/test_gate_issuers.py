"""The gate with a legacy secret, and with several issuers: each on its own terms."""

from __future__ import annotations

import json
import shutil
import tempfile
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from matrix.auth import Issuer, Policy, StaticKeys, TokenGate, secret_key
from matrix.auth._jwk import read_key
from matrix.errors import Unavailable
from matrix.testing.issuer import LocalIssuer
from tests.auth.gating import GateCase


class SecretTests(GateCase):
    """HS256 with the legacy secret, and with nothing else."""

    def setUp(self) -> None:
        super().setUp()
        self.secret = self.issuer.legacy_secret.decode()
        self.gate = self.make(self.secret)

    def symmetric(self, **changes: Any) -> bytes:
        return self.mint(**{"alg": "HS256", "secret": self.secret.encode(), **changes})

    def test_whatever_key_it_names_the_secret_counts(self) -> None:
        for kid in (None, "", "anything", self.issuer.keys["current"].kid):
            self.assertIsNone(self.reason(self.symmetric(header={"kid": kid})), kid)
        self.assertEqual(self.keys.asked, 0)

    def test_the_others_still_count(self) -> None:
        self.assertIsNone(self.reason(self.mint()))

    def test_without_a_secret_it_is_refused(self) -> None:
        self.gate = self.make()
        self.assertEqual(self.reason(self.symmetric()), "algorithm")

    def test_another_secret(self) -> None:
        self.assertEqual(self.reason(self.symmetric(secret=b"x" * 40)), "signature")

    def test_the_secret_is_text_and_not_base64(self) -> None:
        decoded = urlsafe_b64decode(self.secret + "=" * (-len(self.secret) % 4))
        self.assertEqual(self.reason(self.symmetric(secret=decoded)), "signature")

    def test_no_public_key_is_a_secret(self) -> None:
        """Key confusion, in each form in which the key is public."""
        key = self.issuer.keys["current"]
        public = key.private.public_key()
        forms = [
            key.public_pem,
            key.public_pem.strip(),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
            public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
            json.dumps(key.jwk()).encode(),
            json.dumps({"keys": self.issuer.keys.listed()}).encode(),
            str(key.jwk()["x"]).encode(),
            key.kid.encode(),
            b"",
        ]
        for form in forms:
            for kid in (key.kid, None):
                # An empty secret would mean the PEM to the minter.
                token = self.symmetric(secret=form or b"\0", header={"kid": kid})
                self.assertEqual(self.reason(token), "signature", form)

    def test_other_symmetric_algorithms_are_refused(self) -> None:
        for alg in ("HS384", "HS512", "none"):
            self.assertEqual(self.reason(self.symmetric(alg=alg)), "algorithm")

    def test_a_header_that_promises_more_than_the_key(self) -> None:
        token = self.symmetric(header={"alg": "ES256"})
        self.assertEqual(self.reason(token), "signature")

    def test_api_keys_are_signed_with_it_and_are_no_tokens(self) -> None:
        for role in ("anon", "service_role"):
            self.assertEqual(self.reason(self.issuer.api_key(role).encode()), "issuer")
        named = {"role": "service_role", "without": {"sub", "session_id"}}
        self.assertEqual(self.reason(self.symmetric(**named)), "role")

    def test_a_change_of_keys_leaves_what_the_secret_verified(self) -> None:
        token, other = self.symmetric(), self.mint()
        self.successResultOf(self.outcome(token))
        self.successResultOf(self.outcome(other))
        self.keys.set([])
        self.assertIsNotNone(self.gate.recall(token))
        self.assertIsNone(self.gate.recall(other))

    def test_an_issuer_that_is_down_matters_not(self) -> None:
        self.keys.set(None)
        self.assertIsNone(self.reason(self.symmetric()))

    def test_the_secret_shows_nowhere(self) -> None:
        issuer = Issuer(Policy("x"), self.keys, secret_key(self.secret))
        self.assertNotIn(self.secret, repr(issuer) + repr(issuer.secret))


class SeveralIssuersTests(GateCase):
    """Each with keys and terms of its own, which hold for its own tokens only."""

    NAME = "https://b.example/auth/v1"

    def setUp(self) -> None:
        super().setUp()
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        self.other = LocalIssuer.open(directory, issuer=self.NAME, now=self.clock.seconds)
        # Under the same id as the first issuer's.
        kid = self.issuer.keys["current"].kid
        (listed,) = self.other.keys.listed()
        self.other_keys = StaticKeys([read_key({**listed, "kid": kid})])
        self.header = {"kid": kid}
        policy = Policy(self.NAME, audience="b", role="member")
        secret = self.issuer.legacy_secret.decode()
        self.gate = TokenGate(
            [
                Issuer(Policy(issuer=self.issuer.issuer), self.keys, secret_key(secret)),
                Issuer(policy, self.other_keys),
            ],
            self.clock.seconds,
        )

    def theirs(self, **changes: Any) -> bytes:
        given = {"aud": "b", "role": "member", "header": self.header, **changes}
        return self.other.mint("alice", **given).encode()

    def test_each_issuers_tokens_are_accepted(self) -> None:
        self.assertIsNone(self.reason(self.mint()))
        self.assertIsNone(self.reason(self.theirs()))

    def test_neither_speaks_for_the_other(self) -> None:
        self.assertEqual(self.reason(self.theirs(iss=self.issuer.issuer)), "signature")
        self.assertEqual(self.reason(self.mint(iss=self.NAME)), "signature")

    def test_the_terms_are_those_of_the_issuer(self) -> None:
        self.assertEqual(self.reason(self.mint(aud="b")), "audience")
        self.assertEqual(self.reason(self.mint(role="member")), "role")
        self.assertEqual(self.reason(self.theirs(aud="authenticated")), "audience")
        self.assertEqual(self.reason(self.theirs(role="authenticated")), "role")

    def test_an_issuer_that_nobody_configured(self) -> None:
        for iss in ("https://c.example", self.NAME + "/", "", None, 7, [self.NAME], {}):
            self.assertEqual(self.reason(self.theirs(iss=iss)), "issuer", iss)
        self.assertEqual((self.keys.asked, self.other_keys.asked), (0, 0))

    def test_the_secret_is_one_issuers_only(self) -> None:
        secret = self.issuer.legacy_secret
        self.assertIsNone(self.reason(self.mint(alg="HS256", secret=secret)))
        token = self.theirs(alg="HS256", secret=secret)
        self.assertEqual(self.reason(token), "algorithm")

    def test_one_that_is_down_keeps_nobody_of_the_other_out(self) -> None:
        self.other_keys.set(None)
        self.assertIsNone(self.reason(self.mint()))
        self.failureResultOf(self.outcome(self.theirs()), Unavailable)

    def test_a_change_of_keys_concerns_its_own_tokens(self) -> None:
        ours, theirs = self.mint(), self.theirs()
        self.successResultOf(self.outcome(ours))
        self.successResultOf(self.outcome(theirs))
        self.other_keys.set([])
        self.assertIsNotNone(self.gate.recall(ours))
        self.assertIsNone(self.gate.recall(theirs))
        self.keys.set([])
        self.assertIsNone(self.gate.recall(ours))

    def test_what_is_no_object_says_no_issuer(self) -> None:
        key = self.issuer.keys["current"]
        header = self.mint().partition(b".")[0]
        for payload in (b"[]", b"7", b"{"):
            message = header + b"." + urlsafe_b64encode(payload).rstrip(b"=")
            signature = urlsafe_b64encode(key.sign(message)).rstrip(b"=")
            self.assertEqual(self.reason(message + b"." + signature), "malformed")

    def test_issuers_need_names_of_their_own(self) -> None:
        policy = Policy(self.NAME)
        for issuers in ([], [Issuer(policy, self.keys), Issuer(policy, self.other_keys)]):
            with self.assertRaises(ValueError):
                TokenGate(issuers, self.clock.seconds)
