"""Which members of a key set are taken, and how long a set is kept."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth._jwk import (
    MAX_KEYS,
    MAX_LIFETIME,
    MIN_LIFETIME,
    KeyRefusedError,
    lifetime,
    read_key,
    read_key_set,
)

P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def ec_jwk(**members: Any) -> dict[str, Any]:
    """A good ES256 key as Supabase lists it, with changes; C{None} leaves a member out."""
    made = ECAlgorithm.to_jwk(P256.public_key(), as_dict=True)
    made |= {"kid": "k", "alg": "ES256", "use": "sig", "key_ops": ["verify"]} | members
    return {name: value for name, value in made.items() if value is not None}


def document(*members: Any) -> bytes:
    return json.dumps({"keys": members}).encode()


class ReadKeyTests(SynchronousTestCase):
    def test_each_kind_of_key(self) -> None:
        curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
        for name, curve in curves.items():
            public = ec.generate_private_key(curve).public_key()
            jwk = ECAlgorithm.to_jwk(public, as_dict=True) | {"kid": "k"}
            self.assertEqual(read_key(jwk).algorithm, name)
            self.assertEqual(read_key(jwk | {"alg": name}).algorithm, name)
        jwk = RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True) | {"kid": "k"}
        self.assertEqual(read_key(jwk).algorithm, "RS256")
        for name in ("RS256", "RS512", "PS256"):
            self.assertEqual(read_key(jwk | {"alg": name}).algorithm, name)
        edwards = ed25519.Ed25519PrivateKey.generate().public_key()
        jwk = OKPAlgorithm.to_jwk(edwards, as_dict=True) | {"kid": "k"}
        self.assertEqual(read_key(jwk).algorithm, "EdDSA")

    def test_equal_material_makes_equal_keys(self) -> None:
        """So that a refreshed set that is the same counts as no change."""
        self.assertEqual(read_key(ec_jwk()), read_key(ec_jwk()))
        other = ECAlgorithm.to_jwk(
            ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True
        )
        self.assertNotEqual(read_key(ec_jwk()), read_key(other | {"kid": "k"}))

    def test_optional_members_may_be_missing(self) -> None:
        self.assertEqual(read_key(ec_jwk(use=None, key_ops=None, alg=None)).kid, "k")
        self.assertEqual(read_key(ec_jwk(ext=True, x5t="?")).kid, "k")

    def test_refused(self) -> None:
        secret = urlsafe_b64encode(b"s" * 32).decode()
        private = ECAlgorithm.to_jwk(P256, as_dict=True)
        short = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
        rsa_jwk = RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True)
        for jwk, says in (
            ("text", "not a JSON object"),
            (None, "not a JSON object"),
            ({}, "no kid"),
            (ec_jwk(kid=None), "no kid"),
            (ec_jwk(kid=""), "no kid"),
            (ec_jwk(kid=1), "no kid"),
            ({"kty": "oct", "k": secret, "kid": "k", "alg": "HS256"}, "secret"),
            ({"kty": "oct", "kid": "k", "alg": "HS256"}, "do not go with"),
            (private | {"kid": "k", "key_ops": ["verify"]}, "secret"),
            (ec_jwk(use="enc"), "checking"),
            (ec_jwk(key_ops=["sign"]), "checking"),
            (ec_jwk(key_ops=[]), "checking"),
            (ec_jwk(key_ops="verify"), "checking"),
            (ec_jwk(key_ops=7), "checking"),
            (ec_jwk(alg="HS256"), "do not go with"),
            (ec_jwk(alg="none"), "do not go with"),
            (ec_jwk(alg="RS256"), "do not go with"),
            (ec_jwk(alg="ES512"), "do not go with"),
            (ec_jwk(crv="secp256k1"), "do not go with"),
            (ec_jwk(crv=["P-256"]), "do not go with"),
            (ec_jwk(alg="ES384", crv="P-384"), "unreadable"),
            (ec_jwk(x=None), "unreadable"),
            (ec_jwk(x="AAAA"), "unreadable"),
            (ec_jwk(y=ec_jwk()["x"]), "unreadable"),
            (ec_jwk(x=5), "unreadable"),
            (rsa_jwk | {"kid": "k", "alg": "ES256"}, "do not go with"),
            (rsa_jwk | {"kid": "k", "n": ""}, "unreadable"),
            (RSAAlgorithm.to_jwk(short, as_dict=True) | {"kid": "k"}, "2048"),
        ):
            with self.assertRaises(KeyRefusedError, msg=repr(jwk)) as caught:
                read_key(jwk)
            self.assertIn(says, str(caught.exception), jwk)

    def test_shows_no_material(self) -> None:
        self.assertEqual(repr(read_key(ec_jwk())), "Key(kid='k', algorithm='ES256')")


class ReadKeySetTests(SynchronousTestCase):
    def test_a_bad_key_does_not_spoil_the_others(self) -> None:
        found = read_key_set(document({"kty": "?"}, ec_jwk(), ec_jwk(kid="l", x="A"), "?"))
        self.assertEqual(set(found.keys), {"k"})
        self.assertEqual(len(found.refused), 3)

    def test_the_first_of_two_with_one_id_counts(self) -> None:
        other = RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True) | {"kid": "k"}
        found = read_key_set(document(ec_jwk(), other))
        self.assertEqual(found.keys["k"].algorithm, "ES256")
        self.assertEqual(len(found.refused), 1)

    def test_an_empty_set_is_a_set(self) -> None:
        self.assertEqual(read_key_set(b'{"keys":[]}').keys, {})

    def test_the_number_is_bounded(self) -> None:
        found = read_key_set(document(*(ec_jwk(kid=str(n)) for n in range(MAX_KEYS + 5))))
        self.assertEqual(len(found.keys), MAX_KEYS)
        self.assertEqual(len(found.refused), 1)

    def test_what_is_no_key_set(self) -> None:
        for text in (b"", b"<html>", b"[]", b"{}", b'{"keys":{}}', b"null", b"\xff", b"[" * 99999):
            with self.assertRaises(ValueError, msg=text[:10]):
                read_key_set(text)


class LifetimeTests(SynchronousTestCase):
    def test_table(self) -> None:
        for cache_control, age, seconds in (
            (None, None, MIN_LIFETIME),
            ("", None, MIN_LIFETIME),
            ("no-store", None, MIN_LIFETIME),
            ("max-age=0", None, MIN_LIFETIME),
            ("public, max-age=600", None, 600.0),
            ("public,max-age=300,must-revalidate", None, 300.0),
            ("Public, Max-Age=300", None, 300.0),
            ('max-age="300"', None, 300.0),
            ("s-maxage=5, max-age=300", None, 300.0),
            ("x-max-age=300", None, MIN_LIFETIME),
            ("max-age=86400", None, MAX_LIFETIME),
            ("max-age=-5", None, MIN_LIFETIME),
            ("max-age=five", None, MIN_LIFETIME),
            ("max-age=600", "200", 400.0),
            ("max-age=600", "9" * 50, MIN_LIFETIME),
            ("max-age=600", "-5", 600.0),
            ("max-age=600", "²", 600.0),
        ):
            self.assertEqual(lifetime(cache_control, age), seconds, (cache_control, age))

    @given(st.none() | st.text(), st.none() | st.text())
    def test_always_within_its_bounds(self, cache_control: str | None, age: str | None) -> None:
        seconds = lifetime(cache_control, age)
        self.assertTrue(MIN_LIFETIME <= seconds <= MAX_LIFETIME, seconds)
