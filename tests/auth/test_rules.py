"""Which tokens are refused, and with which code: a table over facts/supabase.md 1 to 3."""

from __future__ import annotations

import contextlib  # trial takes a module's "suppress" for its own
import json
import shutil
import tempfile
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Key, Policy
from matrix.auth._jwk import read_key
from matrix.auth._rules import MAX_TOKEN, check_signature, judge, take_apart
from matrix.errors import Unauthorized
from matrix.model import Principal
from matrix.testing._issuer_keys import create_key
from matrix.testing.issuer import ISSUER, LocalIssuer

NOW = 1_800_000_000.0
OTHER_UUID = "6f1f2f0a-8f5e-4c2c-9d2c-0a6b6d3f1e11"


def b64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


class RulesCase(SynchronousTestCase):
    """With a local issuer whose time stands still, and its keys."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = Path(tempfile.mkdtemp())
        cls.issuer = LocalIssuer.open(cls.directory / "issuer", now=lambda: NOW)
        cls.issuer.keys.prepare("RS256")
        cls.policy = Policy(issuer=cls.issuer.issuer)

    @classmethod
    def tearDownClass(cls) -> None:
        shutil.rmtree(cls.directory)

    def keys(self) -> dict[str, Key]:
        return {key.kid: key for key in map(read_key, self.issuer.keys.listed())}

    def verify(self, token: str | bytes, policy: Policy | None = None) -> Principal:
        """What the gate does, without its memory."""
        data = token.encode() if isinstance(token, str) else token
        signed = take_apart(data)
        key = self.keys().get(signed.kid)
        if key is None:
            raise AssertionError("the token names no listed key")
        return judge(check_signature(signed, key), policy or self.policy, NOW)

    def reason(self, token: str | bytes, policy: Policy | None = None) -> str | None:
        """The code of the refusal; C{None} if the token is accepted."""
        try:
            self.verify(token, policy)
        except Unauthorized as error:
            return error.reason
        return None


class GoodTokenTests(RulesCase):
    def test_a_normal_user(self) -> None:
        session = str(uuid4())
        principal = self.verify(self.issuer.mint("alice", session_id=session))
        user = self.issuer.user("alice")
        self.assertEqual(principal, Principal(user.id, session, NOW + 3600, "alice@localhost"))

    def test_an_rsa_key(self) -> None:
        token = self.issuer.mint("alice", signed_by="standby")
        self.assertEqual(take_apart(token.encode()).algorithm, "RS256")
        self.assertEqual(self.verify(token).email, "alice@localhost")

    def test_ids_in_capitals_are_the_same_ids(self) -> None:
        user = self.issuer.user("alice")
        token = self.issuer.mint("alice", sub=user.id.upper(), session_id=OTHER_UUID.upper())
        principal = self.verify(token)
        self.assertEqual((principal.user_id, principal.session_id), (user.id, OTHER_UUID))

    def test_variants_that_hooks_make(self) -> None:
        for variant in (
            {"aud": ["other", "authenticated"]},
            {"email": "", "phone": "+491234"},
            {"amr": ["password"]},
            {"aal": "aal2"},
            {"user_metadata": {"role": "service_role"}},
            {"client_id": ""},
            {"exp": NOW + 0.5},
            {"exp": NOW - 29},
            {"iat": NOW + 119},
            {"nbf": NOW + 29},
            {"iat": None},
        ):
            self.assertIsNone(self.reason(self.issuer.mint("alice", **variant)), variant)
        self.assertIsNone(self.reason(self.issuer.mint("alice", without={"email", "aal", "amr"})))

    def test_an_email_of_another_type_is_none(self) -> None:
        self.assertEqual(self.verify(self.issuer.mint("alice", email=["x"])).email, "")


class ClaimTests(RulesCase):
    """Section 1 and 3: each claim's rule, with a valid signature."""

    TABLE: list[tuple[dict[str, Any], str]] = [
        ({"exp": NOW - 30}, "expired"),
        ({"exp": NOW - 10_000}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": -1}, "expired"),
        ({"exp": None}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"exp": str(int(NOW + 60))}, "malformed"),
        ({"exp": float("nan")}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"exp": 10**400}, "malformed"),
        ({"exp": [NOW + 60]}, "malformed"),
        ({"nbf": NOW + 31}, "not-yet-valid"),
        ({"nbf": "soon"}, "malformed"),
        ({"iat": NOW + 121}, "not-yet-valid"),
        ({"iat": float("nan")}, "malformed"),
        ({"iss": "https://other.supabase.co/auth/v1"}, "issuer"),
        ({"iss": "http://localhost/auth/v1/"}, "issuer"),
        ({"iss": ["http://localhost/auth/v1"]}, "issuer"),
        ({"iss": "supabase"}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": ""}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": ["other", "authenticated "]}, "audience"),
        ({"aud": [["authenticated"]]}, "audience"),
        ({"aud": {"authenticated": 1}}, "audience"),
        ({"role": "anon"}, "role"),
        ({"role": "service_role"}, "role"),
        ({"role": "supabase_admin"}, "role"),
        ({"role": ""}, "role"),
        ({"role": ["authenticated"]}, "role"),
        ({"sub": ""}, "subject"),
        ({"sub": "alice"}, "subject"),
        ({"sub": 1}, "subject"),
        ({"sub": "{6f1f2f0a-8f5e-4c2c-9d2c-0a6b6d3f1e11}"}, "subject"),
        ({"sub": "urn:uuid:6f1f2f0a-8f5e-4c2c-9d2c-0a6b6d3f1e11"}, "subject"),
        ({"sub": "6f1f2f0a8f5e4c2c9d2c0a6b6d3f1e11"}, "subject"),
        ({"sub": OTHER_UUID + "\n"}, "subject"),
        ({"session_id": ""}, "session"),
        ({"session_id": "1"}, "session"),
        ({"session_id": None}, "session"),
        ({"client_id": OTHER_UUID}, "client"),
        ({"client_id": {"a": 1}}, "client"),
        ({"is_anonymous": True}, "anonymous"),
        ({"is_anonymous": "yes"}, "anonymous"),
    ]

    def test_table(self) -> None:
        for claims, reason in self.TABLE:
            self.assertEqual(self.reason(self.issuer.mint("alice", **claims)), reason, claims)

    def test_missing_claims(self) -> None:
        for name, reason in {
            "exp": "malformed",
            "iss": "issuer",
            "aud": "audience",
            "role": "role",
            "sub": "subject",
            "session_id": "session",
        }.items():
            self.assertEqual(self.reason(self.issuer.mint("alice", without={name})), reason, name)

    def test_api_keys_are_no_tokens(self) -> None:
        """The legacy keys, as they are and as an imported signing key could mint them."""
        for role in ("anon", "service_role"):
            self.assertEqual(self.reason(self.issuer.api_key(role)), "algorithm")
            token = self.issuer.mint(
                "alice", iss="supabase", role=role, without={"sub", "aud", "session_id"}
            )
            self.assertEqual(self.reason(token), "issuer")
            token = self.issuer.mint("alice", role=role, without={"sub", "session_id"})
            self.assertEqual(self.reason(token), "role")
        for opaque in ("sb_publishable_abc123", "sb_secret_abc123"):
            self.assertEqual(self.reason(opaque), "malformed")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


class OddClaimTests(RulesCase):
    STRICT = Policy(issuer=ISSUER, second_factor=True, clients=frozenset({OTHER_UUID}))

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_whatever_a_claim_is_a_refusal_is_a_refusal(self, data: st.DataObject) -> None:
        """A signed token is no reason to trust its types: hooks may write what they like."""
        claims = self.issuer.claims("alice") | {"aal": "aal2", "client_id": OTHER_UUID}
        judge(claims, self.STRICT, NOW)
        names = st.sampled_from([*claims, "nbf"])
        for name in data.draw(st.lists(names, min_size=1, max_size=3)):
            claims[name] = data.draw(_JSON)
        with contextlib.suppress(Unauthorized):
            judge(claims, self.STRICT, NOW)


class PolicyTests(RulesCase):
    def test_audience_and_role_are_settings(self) -> None:
        policy = Policy(issuer="https://me", audience="mine", role="member")
        token = self.issuer.mint("alice", iss="https://me", aud="mine", role="member")
        self.assertIsNone(self.reason(token, policy))
        self.assertEqual(self.reason(self.issuer.mint("alice"), policy), "issuer")
        self.assertEqual(self.reason(token), "issuer")

    def test_leeway_is_a_setting(self) -> None:
        strict = Policy(issuer=self.issuer.issuer, leeway=0)
        self.assertEqual(self.reason(self.issuer.mint("alice", life=0), strict), "expired")
        self.assertIsNone(self.reason(self.issuer.mint("alice", life=1), strict))
        wide = Policy(issuer=self.issuer.issuer, leeway=300)
        self.assertIsNone(self.reason(self.issuer.mint("alice", iat=NOW + 299), wide))
        self.assertIsNone(self.reason(self.issuer.mint("alice", life=-299), wide))

    def test_oauth_clients_may_be_listed(self) -> None:
        policy = Policy(issuer=self.issuer.issuer, clients=frozenset({OTHER_UUID}))
        self.assertIsNone(self.reason(self.issuer.mint("alice", client_id=OTHER_UUID), policy))
        token = self.issuer.mint("alice", client_id=str(uuid4()))
        self.assertEqual(self.reason(token, policy), "client")

    def test_anonymous_users_may_be_let_in(self) -> None:
        policy = Policy(issuer=self.issuer.issuer, anonymous=True)
        self.assertIsNone(self.reason(self.issuer.mint("alice", is_anonymous=True), policy))

    def test_a_second_factor_may_be_asked_for(self) -> None:
        policy = Policy(issuer=self.issuer.issuer, second_factor=True)
        self.assertEqual(self.reason(self.issuer.mint("alice"), policy), "assurance")
        self.assertEqual(
            self.reason(self.issuer.mint("alice", without={"aal"}), policy), "assurance"
        )
        self.assertIsNone(self.reason(self.issuer.mint("alice", aal="aal2"), policy))


class KeyAndAlgorithmTests(RulesCase):
    """Section 2: the key says which algorithm counts."""

    def test_no_signature_is_none(self) -> None:
        for spelling in ("none", "None", "NONE", "nOnE"):
            self.assertEqual(self.reason(self.issuer.mint("alice", alg=spelling)), "algorithm")

    def test_key_confusion(self) -> None:
        """The public key, which everybody has, used as a symmetric secret."""
        for alg in ("HS256", "HS384", "HS512"):
            self.assertEqual(self.reason(self.issuer.mint("alice", alg=alg)), "algorithm")
        jwk = json.dumps(self.issuer.keys.listed()[0]).encode()
        token = self.issuer.mint("alice", alg="HS256", secret=jwk)
        self.assertEqual(self.reason(token), "algorithm")

    def test_another_algorithm_than_the_keys(self) -> None:
        for alg in ("ES384", "RS256", "PS256", "EdDSA"):
            token = self.issuer.mint("alice", header={"alg": alg})
            self.assertEqual(self.reason(token), "algorithm", alg)

    def test_algorithms_that_are_no_text(self) -> None:
        for alg in (None, 1, ["ES256"], {"ES256": 1}, "", "es256"):
            token = self.issuer.mint("alice", header={"alg": alg})
            self.assertEqual(self.reason(token), "algorithm", alg)

    def test_a_token_may_not_bring_its_key(self) -> None:
        own = create_key()
        for name, value in {
            "jwk": dict(own.jwk()),
            "jku": "https://evil.example/keys",
            "x5u": "https://evil.example/cert",
            "x5c": ["MIIB"],
        }.items():
            token = self.issuer.mint("alice", header={name: value})
            self.assertEqual(self.reason(token), "embedded-key", name)

    def test_a_token_must_name_its_key(self) -> None:
        for kid in (None, "", 7, ["a"]):
            token = self.issuer.mint("alice", header={"kid": kid})
            self.assertEqual(self.reason(token), "unknown-key", kid)

    def test_unknown_critical_extensions(self) -> None:
        token = self.issuer.mint("alice", header={"crit": ["b64"], "b64": False})
        self.assertEqual(self.reason(token), "malformed")

    def test_another_issuers_key_under_our_kid(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            forger = LocalIssuer.open(Path(directory), now=lambda: NOW)
            kid = self.issuer.keys["current"].kid
            token = forger.mint("alice", header={"kid": kid})
        self.assertEqual(self.reason(token), "signature")


class FormTests(RulesCase):
    def test_malformed(self) -> None:
        token = self.issuer.mint("alice").encode()
        header, payload, signature = token.split(b".")
        deep = b64(b"[" * 5000)
        for bad in (
            b"",
            b".",
            b"..",
            header,
            header + b"." + payload,
            token + b".",
            token + b"=",
            token + b" ",
            b" " + token,
            token + b"\n",
            b".".join((header, b"", signature)),
            b".".join((header + b"=", payload, signature)),
            b".".join((b64(b"{"), payload, signature)),
            b".".join((b64(b"[]"), payload, signature)),
            b".".join((b64(b'"ES256"'), payload, signature)),
            b".".join((b64(b"\xff\xfe"), payload, signature)),
            b".".join((deep, payload, signature)),
            b".".join((b64(b'{"alg":' + b"9" * 5000 + b"}"), payload, signature)),
            b".".join((b"a", payload, signature)),
            "é.é.é".encode(),
            token.replace(b".", b",", 1),
        ):
            self.assertEqual(self.reason(bad), "malformed", bad[:60])

    def test_signed_nonsense(self) -> None:
        """Even what the issuer signed must be an object."""
        key = self.issuer.keys["current"]
        for payload in (b"[]", b"1", b"null", b"{", b"[" * 5000, b"\xff"):
            header = b64(json.dumps({"alg": "ES256", "kid": key.kid}).encode())
            message = header + b"." + b64(payload)
            token = message + b"." + b64(key.sign(message))
            self.assertEqual(self.reason(token), "malformed", payload[:10])

    def test_signatures_of_other_lengths(self) -> None:
        message = self.issuer.mint("alice").rpartition(".")[0].encode()
        for length in (0, 1, 63, 65, 72, 128):
            token = message + b"." + b64(b"\1" * length)
            self.assertEqual(self.reason(token), "signature", length)
        self.assertEqual(self.reason(message + b"." + b64(bytes(64))), "signature")

    def test_size(self) -> None:
        room = "x" * (MAX_TOKEN // 2)
        token = self.issuer.mint("alice", user_metadata={"note": room})
        self.assertIsNone(self.reason(token))
        token = self.issuer.mint("alice", user_metadata={"note": room * 2})
        self.assertGreater(len(token), MAX_TOKEN)
        self.assertEqual(self.reason(token), "malformed")


class SecrecyTests(RulesCase):
    def test_a_token_shows_nothing(self) -> None:
        token = self.issuer.mint("alice").encode()
        signed = take_apart(token)
        for text in (repr(signed), str(signed), f"{signed}"):
            self.assertEqual(text, "<SignedToken>")

    def test_a_refusal_tells_neither_key_nor_token(self) -> None:
        token = self.issuer.mint("alice", header={"alg": "RS256"})
        with self.assertRaises(Unauthorized) as caught:
            self.verify(token)
        text = repr(caught.exception) + str(caught.exception) + repr(caught.exception.headers)
        for key in self.issuer.keys.listed():
            self.assertNotIn(key["kid"], text)
        self.assertNotIn(token[:20], text)
