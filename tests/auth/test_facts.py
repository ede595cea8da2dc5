"""Each row of facts/supabase.md sections 1 to 4, by its name, against the whole gate."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Issuer, Key, Policy, Reason, StaticKeys, TokenGate, secret_key
from matrix.auth._jwk import read_key, read_key_set
from matrix.errors import Unauthorized
from matrix.model import Principal
from matrix.testing._issuer_keys import create_key
from matrix.testing.issuer import LocalIssuer

NOW = 1_800_000_000
HOSTED = "https://abcdefghijklmnopqrst.supabase.co/auth/v1"
LOCAL = "http://127.0.0.1:54321/auth/v1"
CLIENT = "9a8b7c6d-0000-4000-8000-00000000000c"

Row = tuple[str, dict[str, Any], str | None]
"""The row's name, what is special about the token, and the refusal's code if it is refused."""


class FactsCase(SynchronousTestCase):
    """With a hosted project that has a legacy secret, and a gate on the usual terms."""

    terms: ClassVar[dict[str, Any]] = {}
    with_secret = True

    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        self.clock = Clock()
        self.clock.advance(NOW)
        self.issuer = LocalIssuer.open(directory, issuer=HOSTED, now=self.clock.seconds)
        self.secret = self.issuer.legacy_secret
        self.keys = StaticKeys(self.listed())
        self.gate = self.make()

    def listed(self) -> list[Key]:
        return [read_key(jwk) for jwk in self.issuer.keys.listed()]

    def make(self, **terms: Any) -> TokenGate:
        policy = Policy(**{"issuer": HOSTED, **self.terms, **terms})
        key = secret_key(self.secret.decode()) if self.with_secret else None
        return TokenGate([Issuer(policy, self.keys, key)], self.clock.seconds)

    def principal(self, token: str) -> Principal:
        return self.successResultOf(Deferred.fromCoroutine(self.gate.verify(token.encode())))

    def reason(self, token: str) -> str | None:
        """The code of the refusal; C{None} if the token is accepted."""
        try:
            self.gate.verify(token.encode()).send(None)
        except StopIteration:
            return None
        except Unauthorized as error:
            self.assertIn(error.reason, list(Reason))
            return error.reason
        raise AssertionError("the gate waits for something")

    def judge(self, rows: list[Row], *, alg: str = "ES256") -> None:
        symmetric = {"alg": "HS256", "secret": self.secret} if alg == "HS256" else {}
        for row, special, reason in rows:
            token = self.issuer.mint("alice", **{**symmetric, **special})
            self.assertEqual(self.reason(token), reason, (row, special))


class ClaimRowTests(FactsCase):
    """Section 1."""

    ROWS: ClassVar[list[Row]] = [
        ("a normal token", {}, None),
        ("iss: the hosted project", {"iss": HOSTED}, None),
        ("iss: a custom domain does not show", {"iss": "https://auth.me/auth/v1"}, "issuer"),
        ("iss: the local CLI's", {"iss": LOCAL}, "issuer"),
        ("iss: a hook may drop it", {"without": {"iss"}}, "issuer"),
        ("aud: text", {"aud": "authenticated"}, None),
        ("aud: a list", {"aud": ["authenticated"]}, None),
        ("aud: a list of several", {"aud": ["x", "authenticated"]}, None),
        ("aud: a hook may change it", {"aud": "x"}, "audience"),
        ("aud: missing", {"without": {"aud"}}, "audience"),
        ("sub: a UUID", {"sub": CLIENT}, None),
        ("sub: no UUID", {"sub": "alice@example.org"}, "subject"),
        ("sub: missing", {"without": {"sub"}}, "subject"),
        ("exp: missing", {"without": {"exp"}}, "malformed"),
        ("exp: over", {"exp": NOW - 30}, "expired"),
        ("iat: missing", {"without": {"iat"}}, None),
        ("no nbf, no jti by default; with them", {"nbf": NOW, "jti": "1"}, None),
        ("nbf: ahead", {"nbf": NOW + 31}, "not-yet-valid"),
        ("role: authenticated", {"role": "authenticated"}, None),
        ("role: a hook may change it", {"role": "editor"}, "role"),
        ("role: missing", {"without": {"role"}}, "role"),
        ("email, phone: empty", {"email": "", "phone": ""}, None),
        ("email, phone: missing", {"without": {"email", "phone"}}, None),
        ("aal: aal1", {"aal": "aal1"}, None),
        ("aal: aal2", {"aal": "aal2"}, None),
        ("amr: objects", {"amr": [{"method": "otp", "timestamp": NOW}]}, None),
        ("amr: plain strings", {"amr": ["password", "totp"]}, None),
        ("amr: with a provider", {"amr": [{"method": "sso/saml", "provider": "x"}]}, None),
        ("amr: missing", {"without": {"amr"}}, None),
        ("session_id: missing", {"without": {"session_id"}}, "session"),
        ("session_id: no UUID", {"session_id": "7"}, "session"),
        ("is_anonymous: true", {"is_anonymous": True}, "anonymous"),
        ("is_anonymous: missing", {"without": {"is_anonymous"}}, None),
        ("app_metadata: own fields", {"app_metadata": {"plan": "pro"}}, None),
        ("user_metadata: worth nothing", {"user_metadata": {"role": "service_role"}}, None),
        ("user_metadata: none", {"role": "", "user_metadata": {"role": "authenticated"}}, "role"),
        ("client_id, scope: a third party's", {"client_id": CLIENT, "scope": "email"}, "client"),
        ("header: no typ", {"header": {"typ": None}}, None),
        ("header: no kid", {"header": {"kid": None}}, "unknown-key"),
        ("a hook may add claims", {"tenant": {"id": 7}}, None),
        ("third-party auth: Clerk", {"iss": "https://clerk.example.com"}, "issuer"),
        ("third-party auth: Firebase", {"iss": "https://securetoken.google.com/p"}, "issuer"),
    ]  # fmt: skip

    def test_rows(self) -> None:
        self.judge(self.ROWS)

    def test_rows_with_the_legacy_secret(self) -> None:
        """The same but for the key that HS256 tokens need not name."""
        rows = [(*row[:2], None) if row[0] == "header: no kid" else row for row in self.ROWS]
        self.judge(rows, alg="HS256")

    def test_only_sub_identifies(self) -> None:
        before = self.principal(self.issuer.mint("alice"))
        after = self.principal(self.issuer.mint("alice", email="new@example.org", phone="+49"))
        self.assertEqual(before.user_id, after.user_id)
        self.assertNotEqual(before.email, after.email)

    def test_banned_users_keep_their_token_until_it_ends(self) -> None:
        self.issuer.user("alice").banned = True
        self.assertIsNone(self.reason(self.issuer.mint("alice")))

    def test_the_local_cli(self) -> None:
        self.gate = self.make(issuer=LOCAL)
        self.assertIsNone(self.reason(self.issuer.mint("alice", iss=LOCAL)))


class ClientRowTests(FactsCase):
    """Section 1, last but two: tokens of third-party OAuth clients."""

    terms: ClassVar = {"clients": frozenset({CLIENT})}

    def test_rows(self) -> None:
        self.judge([
            ("listed", {"client_id": CLIENT, "scope": "openid"}, None),
            ("another", {"client_id": str(uuid4())}, "client"),
            ("the user's own sign-in", {}, None),
        ])  # fmt: skip


class AlgorithmRowTests(FactsCase):
    """Section 2: what projects sign with, and that each key has one algorithm."""

    SIGNERS: ClassVar[dict[str, Any]] = {
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES512": ec.generate_private_key(ec.SECP521R1()),
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "RS512": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }

    def setUp(self) -> None:
        super().setUp()
        self.keys.set(map(read_key, map(self.jwk, self.SIGNERS)))

    def jwk(self, alg: str) -> dict[str, Any]:
        """As Supabase lists it."""
        public = self.SIGNERS[alg].public_key()
        members = get_default_algorithms()[alg].to_jwk(public, as_dict=True)
        return {**members, "kid": alg, "alg": alg, "use": "sig", "key_ops": ["verify"], "ext": True}

    def signed(self, alg: str, by: str | None = None, **header: Any) -> str:
        headers = {"kid": by or alg, **header}
        claims = self.issuer.claims("alice")
        return jwt.encode(claims, self.SIGNERS[by or alg], algorithm=alg, headers=headers)

    def test_each_that_supabase_can_sign_with(self) -> None:
        for alg in self.SIGNERS:
            self.assertIsNone(self.reason(self.signed(alg)), alg)

    def test_the_key_and_not_the_token_says_which(self) -> None:
        self.assertEqual(self.reason(self.signed("RS512", by="RS256")), "algorithm")
        self.assertEqual(self.reason(self.signed("RS256", by="RS512")), "algorithm")
        self.assertEqual(self.reason(self.signed("PS256", by="RS256")), "algorithm")

    def test_another_keys_id(self) -> None:
        self.assertEqual(self.reason(self.signed("ES256", kid="ES512")), "algorithm")
        self.assertEqual(self.reason(self.signed("ES256", kid="other")), "unknown-key")

    def test_symmetric_keys_are_never_listed_and_if_they_were_they_would_not_count(self) -> None:
        oct_key = {"kty": "oct", "kid": "h", "alg": "HS256", "k": "c2VjcmV0" * 6}
        found = read_key_set(json.dumps({"keys": [oct_key, self.jwk("ES256")]}).encode())
        self.assertEqual(set(found.keys), {"ES256"})

    def test_a_symmetric_project_lists_none(self) -> None:
        self.keys.set([])
        hmac = {"alg": "HS256", "secret": self.secret}
        self.assertIsNone(self.reason(self.issuer.mint("alice", **hmac)))
        self.assertEqual(self.reason(self.signed("ES256")), "unknown-key")


class KeyStateRowTests(FactsCase):
    """Section 2: standby, current, previous, revoked, and back."""

    def listed_now(self) -> None:
        self.keys.set(self.listed())

    def test_each_state(self) -> None:
        before = self.issuer.mint("alice")
        self.issuer.keys.prepare()
        self.listed_now()
        early = self.issuer.mint("alice", signed_by="standby")
        self.assertIsNone(self.reason(early), "standby: listed, so it counts")
        self.issuer.keys.rotate()
        self.listed_now()
        self.assertIsNone(self.reason(self.issuer.mint("alice")), "current")
        self.assertIsNone(self.reason(before), "previously used: verifies only")
        self.issuer.keys.revoke()
        self.listed_now()
        self.assertEqual(self.reason(before), "unknown-key", "revoked")
        self.assertIsNone(self.reason(early))

    def test_a_revocation_that_is_taken_back(self) -> None:
        token, listed = self.issuer.mint("alice"), self.listed()
        self.principal(token)
        self.keys.set([])
        self.assertEqual(self.reason(token), "unknown-key")
        self.keys.set(listed)
        self.assertIsNone(self.reason(token))


class RefusedRowTests(FactsCase):
    """Section 3."""

    ROWS: ClassVar[list[Row]] = [
        ("service_role by our own key", {"role": "service_role"}, "role"),
        ("supabase_admin by our own key", {"role": "supabase_admin"}, "role"),
        ("anon by our own key", {"role": "anon"}, "role"),
        (
            "an API key's claims by our own key",
            {
                "iss": "supabase",
                "ref": "x",
                "role": "anon",
                "without": {"sub", "aud", "session_id"},
            },
            "issuer",
        ),
        (
            "its claims with our iss",
            {"role": "service_role", "without": {"sub", "aud", "session_id"}},
            "audience",
        ),
        ("its claims with our iss and aud", {"role": "service_role", "without": {"sub"}}, "role"),
        ("an anonymous user is role authenticated", {"is_anonymous": True}, "anonymous"),
        ("client_id", {"client_id": CLIENT}, "client"),
        ("another project's iss", {"iss": HOSTED.replace("abc", "xyz")}, "issuer"),
    ]

    def test_rows(self) -> None:
        self.judge(self.ROWS)
        self.judge(self.ROWS, alg="HS256")

    def test_legacy_api_keys_even_with_their_secret(self) -> None:
        for role in ("anon", "service_role"):
            self.assertEqual(self.reason(self.issuer.api_key(role)), "issuer", role)

    def test_new_api_keys(self) -> None:
        for key in ("sb_publishable_AbC-12_x", "sb_secret_AbC-12_x"):
            self.assertEqual(self.reason(key), "malformed")

    def test_aal_below_the_policy(self) -> None:
        self.gate = self.make(second_factor=True)
        self.judge([
            ("aal1", {}, "assurance"),
            ("none", {"without": {"aal"}}, "assurance"),
            ("odd", {"aal": ["aal2"]}, "assurance"),
            ("aal2", {"aal": "aal2"}, None),
        ])  # fmt: skip

    def test_anonymous_users_by_choice(self) -> None:
        self.gate = self.make(anonymous=True)
        self.judge([("anonymous", {"is_anonymous": True}, None)])

    def test_keys_that_a_token_brings(self) -> None:
        own = create_key()
        for name, value in {
            "jwk": dict(own.jwk()),
            "jku": f"{HOSTED}/.well-known/jwks.json",
            "x5u": "https://evil.example/cert",
            "x5c": ["MIIB"],
        }.items():
            for alg in ({}, {"alg": "HS256", "secret": self.secret}):
                token = self.issuer.mint("alice", header={name: value}, **alg)
                self.assertEqual(self.reason(token), "embedded-key", name)


class SecretRowTests(FactsCase):
    """Sections 2 and 3 without a secret: nothing symmetric counts."""

    with_secret = False

    def test_rows(self) -> None:
        rows: list[Row] = [
            ("HS256 with the real secret", {"alg": "HS256", "secret": self.secret}, "algorithm"),
            ("HS256 with the public key", {"alg": "HS256"}, "algorithm"),
            ("HS384", {"alg": "HS384"}, "algorithm"),
            ("none", {"alg": "none"}, "algorithm"),
            ("NoNe", {"alg": "NoNe"}, "algorithm"),
        ]
        self.judge(rows)
        self.assertEqual(self.reason(self.issuer.api_key("anon")), "algorithm")
        self.assertEqual(self.keys.asked, 0)


class ValidationRowTests(FactsCase):
    """Section 4: clocks differ, by 30 s either way, and C{iat} by a little more."""

    def test_rows(self) -> None:
        self.judge([
            ("exp: 29 s over", {"exp": NOW - 29}, None),
            ("exp: 30 s over", {"exp": NOW - 30}, "expired"),
            ("nbf: 30 s ahead", {"nbf": NOW + 30}, None),
            ("nbf: 31 s ahead", {"nbf": NOW + 31}, "not-yet-valid"),
            ("iat: in 30 s, as incidents had it", {"iat": NOW + 30}, None),
            ("iat: in 2 min", {"iat": NOW + 120}, None),
            ("iat: in 121 s", {"iat": NOW + 121}, "not-yet-valid"),
            ("iat: long ago", {"iat": NOW - 10**7}, None),
        ])  # fmt: skip

    def test_leeway_by_choice(self) -> None:
        self.gate = self.make(leeway=0)
        self.judge([
            ("exp: now", {"exp": NOW}, "expired"),
            ("exp: in a second", {"exp": NOW + 1}, None),
            ("iat: slightly ahead even so", {"iat": NOW + 60}, None),
        ])  # fmt: skip

    def test_no_request_to_the_issuer(self) -> None:
        """An HS256 token is judged here too; C{/user} is asked about open streams only."""
        self.keys.set(None)
        hmac = {"alg": "HS256", "secret": self.secret}
        self.assertIsNone(self.reason(self.issuer.mint("alice", **hmac)))
