"""The local issuer without a server: its files, its users, and what it mints."""

from __future__ import annotations

import hmac
import json
import os
import shutil
import tempfile
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.testing.issuer import ISSUER, LocalIssuer, LocalUser

ALICE = LocalUser.named("alice").id
NOW = 1_800_000_000.0


def part(token: str, place: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of a token, unverified."""
    segment = token.split(".")[place]
    loaded: dict[str, Any] = json.loads(urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    return loaded


class IssuerCase(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, root)
        self.directory = root / "issuer"
        self.issuer = self.open()

    def open(self, **options: Any) -> LocalIssuer:
        return LocalIssuer.open(self.directory, **({"now": lambda: NOW} | options))


class DirectoryTests(IssuerCase):
    def test_files_are_private(self) -> None:
        self.assertEqual(os.stat(self.directory).st_mode & 0o777, 0o700)
        names = sorted(os.listdir(self.directory))
        self.assertEqual(names, ["current.pem", "legacy-secret"])
        for name in names:
            self.assertEqual(os.stat(self.directory / name).st_mode & 0o777, 0o600, name)

    def test_opening_again_finds_the_same_issuer(self) -> None:
        again = self.open()
        self.assertEqual(again.keys.listed(), self.issuer.keys.listed())
        self.assertEqual(again.password("alice"), self.issuer.password("alice"))
        self.assertEqual(again.user("alice").id, self.issuer.user("alice").id)

    def test_another_directory_is_another_issuer_with_the_same_users(self) -> None:
        other = LocalIssuer.open(self.directory.parent / "other")
        self.assertNotEqual(other.keys["current"].kid, self.issuer.keys["current"].kid)
        self.assertNotEqual(other.password("alice"), self.issuer.password("alice"))
        self.assertEqual(other.user("alice").id, self.issuer.user("alice").id)

    def test_a_file_that_others_can_read_is_refused(self) -> None:
        for name in ("current.pem", "legacy-secret"):
            (self.directory / name).chmod(0o640)
            with self.assertRaises(ConfigurationError) as caught:
                self.open()
            self.assertIn("chmod 600", str(caught.exception))
            (self.directory / name).chmod(0o600)

    def test_a_broken_key_is_named(self) -> None:
        path = self.directory / "current.pem"
        path.write_text("not a key")
        with self.assertRaises(ConfigurationError) as caught:
            self.open()
        self.assertIn(str(path), str(caught.exception))


class UserTests(IssuerCase):
    def test_alice_and_bob(self) -> None:
        alice, bob = self.issuer.user("alice"), self.issuer.user("bob")
        self.assertEqual((alice.email, bob.email), ("alice@localhost", "bob@localhost"))
        self.assertEqual(str(UUID(alice.id)), alice.id)
        self.assertNotEqual(alice.id, bob.id)
        self.assertNotEqual(self.issuer.password("alice"), self.issuer.password("bob"))

    def test_a_name_that_is_not_there(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            self.issuer.mint("carol")
        self.assertIn("alice, bob", str(caught.exception))
        carol = self.issuer.add_user("carol")
        self.assertEqual(part(self.issuer.mint("carol"), 1)["sub"], carol.id)


class MintTests(IssuerCase):
    def test_the_form_of_supabase(self) -> None:
        token = self.issuer.mint("alice")
        kid = self.issuer.keys["current"].kid
        self.assertEqual(part(token, 0), {"alg": "ES256", "typ": "JWT", "kid": kid})
        claims = part(token, 1)
        self.assertEqual(claims["iss"], ISSUER)
        self.assertEqual(claims["exp"] - claims["iat"], 3600)
        required = {"aud", "exp", "iat", "sub", "email", "phone", "role", "aal", "session_id"}
        self.assertEqual(required - set(claims), set())
        self.assertIs(claims["is_anonymous"], False)

    def test_an_independent_verifier_accepts_it(self) -> None:
        issuer = self.open(now=time.time)
        jwk = jwt.PyJWKSet.from_dict({"keys": issuer.keys.listed()}).keys[0]
        claims = jwt.decode(
            issuer.mint("alice"),
            jwk.key,
            algorithms=["ES256"],
            audience="authenticated",
            issuer=ISSUER,
        )
        self.assertEqual(claims["email"], "alice@localhost")

    def test_life_and_issuer_are_settings(self) -> None:
        issuer = self.open(life=60, issuer="https://me.example/auth/v1")
        claims = part(issuer.mint("alice"), 1)
        self.assertEqual(claims["exp"], NOW + 60)
        self.assertEqual(claims["iss"], "https://me.example/auth/v1")
        self.assertEqual(part(issuer.mint("alice", life=5), 1)["exp"], NOW + 5)
        self.assertEqual(part(issuer.mint("alice", life=-5), 1)["exp"], NOW - 5)

    def test_each_token_is_a_session_unless_one_is_named(self) -> None:
        first, second = (part(self.issuer.mint("alice"), 1) for _ in range(2))
        self.assertNotEqual(first["session_id"], second["session_id"])
        named = part(self.issuer.mint("alice", session_id=first["session_id"]), 1)
        self.assertEqual(named["session_id"], first["session_id"])

    def test_claims_and_header_can_be_bent(self) -> None:
        token = self.issuer.mint(
            "alice",
            aud=["a", "b"],
            role="service_role",
            is_anonymous=True,
            aal="aal2",
            client_id="app",
            without={"iss"},
            header={"kid": None, "typ": None, "jku": "https://x"},
        )
        self.assertEqual(part(token, 0), {"alg": "ES256", "jku": "https://x"})
        claims = part(token, 1)
        self.assertEqual((claims["aud"], claims["aal"]), (["a", "b"], "aal2"))
        self.assertNotIn("iss", claims)

    def test_unsigned_and_confused(self) -> None:
        self.assertTrue(self.issuer.mint("alice", alg="none").endswith("."))
        token = self.issuer.mint("alice", alg="HS256", secret=b"s" * 32)
        decoded = jwt.decode(
            token,
            b"s" * 32,
            algorithms=["HS256"],
            options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
        )
        self.assertEqual(decoded["email"], "alice@localhost")

    def test_api_keys(self) -> None:
        claims = part(self.issuer.api_key("service_role"), 1)
        self.assertEqual(sorted(claims), ["exp", "iat", "iss", "ref", "role"])
        self.assertEqual((claims["iss"], claims["role"]), ("supabase", "service_role"))
        self.assertEqual(part(self.issuer.api_key(), 0), {"alg": "HS256", "typ": "JWT"})


class AbilityTests(IssuerCase):
    """What facts/supabase.md section 8 wants of an issuer for tests, row by row."""

    def test_what_it_can_mint(self) -> None:
        mint, secret = self.issuer.mint, self.issuer.legacy_secret
        symmetric = {"alg": "HS256", "secret": secret, "header": {"kid": None}}
        other = str(uuid4())
        rows: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
            ("a normal user", mint("alice"), {"alg": "ES256"}, {"role": "authenticated"}),
            ("anonymous", mint("alice", is_anonymous=True), {}, {"is_anonymous": True}),
            ("aal2", mint("alice", aal="aal2"), {}, {"aal": "aal2"}),
            ("with client_id", mint("alice", client_id=other), {}, {"client_id": other}),
            ("anon key", self.issuer.api_key(), {"alg": "HS256"}, {"sub": None, "role": "anon"}),
            (
                "service_role key",
                self.issuer.api_key("service_role"),
                {"alg": "HS256", "kid": None},
                {"iss": "supabase", "exp": NOW + 10 * 365 * 86400, "session_id": None},
            ),
            (
                "service_role by the asymmetric key",
                mint("alice", role="service_role", without={"sub", "session_id"}),
                {"alg": "ES256"},
                {"role": "service_role", "sub": None},
            ),
            (
                "aud as an array",
                mint("alice", aud=["authenticated"]),
                {},
                {"aud": ["authenticated"]},
            ),
            ("no iss", mint("alice", without={"iss"}), {}, {"iss": None}),
            ("no kid", mint("alice", header={"kid": None}), {"kid": None, "alg": "ES256"}, {}),
            ("just expired", mint("alice", life=-31), {}, {"exp": NOW - 31}),
            ("iat in the future", mint("alice", iat=NOW + 60), {}, {"iat": NOW + 60}),
            ("another project's", mint("alice", iss="https://x.supabase.co"), {}, {"sub": ALICE}),
            ("alg none", mint("alice", alg="none"), {"alg": "none"}, {"sub": ALICE}),
            ("signed with the public key", mint("alice", alg="HS256"), {"alg": "HS256"}, {}),
            ("by the legacy secret", mint("alice", **symmetric), {"alg": "HS256", "kid": None}, {}),
            ("an unknown kid", mint("alice", header={"kid": other}), {"kid": other}, {}),
        ]
        for name, token, header, claims in rows:
            for place, wanted in ((0, header), (1, claims)):
                found = part(token, place)
                self.assertEqual({key: found.get(key) for key in wanted}, wanted, name)

    def test_key_confusion_signs_with_what_everybody_can_read(self) -> None:
        message, _, signature = self.issuer.mint("alice", alg="HS256").rpartition(".")
        pem = self.issuer.keys["current"].public_pem
        digest = hmac.digest(pem, message.encode(), "sha256")
        self.assertEqual(signature, urlsafe_b64encode(digest).rstrip(b"=").decode())


class RotationTests(IssuerCase):
    def kids(self, issuer: LocalIssuer | None = None) -> list[str]:
        return [key["kid"] for key in (issuer or self.issuer).keys.listed()]

    def signer(self) -> str:
        kid: str = part(self.issuer.mint("alice"), 0)["kid"]
        return kid

    def test_a_key_goes_through_its_states(self) -> None:
        (first,) = self.kids()
        standby = self.issuer.keys.prepare().kid
        self.assertEqual(self.kids(), [first, standby])
        self.assertEqual(self.signer(), first)
        self.issuer.keys.rotate()
        self.assertEqual(self.signer(), standby)
        self.assertEqual(set(self.kids()), {first, standby})
        self.issuer.keys.revoke()
        self.assertEqual(self.kids(), [standby])

    def test_every_state_outlives_the_process(self) -> None:
        self.issuer.keys.prepare("RS256")
        self.issuer.keys.rotate()
        self.issuer.keys.prepare()
        self.assertEqual(self.kids(self.open()), self.kids())
        self.assertEqual(len(self.kids()), 3)
        self.assertEqual(part(self.open().mint("alice"), 0)["alg"], "RS256")

    def test_rotating_without_a_standby_makes_one(self) -> None:
        before = self.signer()
        self.issuer.keys.rotate()
        self.assertNotEqual(self.signer(), before)
        self.assertEqual(len(self.kids()), 2)

    def test_the_members_of_a_listed_key(self) -> None:
        self.issuer.keys.prepare("RS256")
        ec, rsa = self.issuer.keys.listed()
        common = {"kty", "kid", "alg", "use", "key_ops", "ext"}
        self.assertEqual(set(ec), common | {"crv", "x", "y"})
        self.assertEqual(set(rsa), common | {"n", "e"})
        self.assertEqual((ec["use"], ec["key_ops"]), ("sig", ["verify"]))

    def test_keys_show_no_material(self) -> None:
        self.assertEqual(repr(self.issuer.keys["current"]), "SigningKey()")
