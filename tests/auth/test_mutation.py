"""No change of a valid token leaves it valid, whatever algorithm signed it."""

from __future__ import annotations

from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Issuer, Policy, StaticKeys, TokenGate, secret_key
from matrix.auth._jwk import read_key
from matrix.errors import Unauthorized
from matrix.testing.issuer import ISSUER

NOW = 1_800_000_000
SECRET = "super-secret-jwt-token-with-at-least-32-characters"
CLAIMS = {
    "iss": ISSUER,
    "aud": "authenticated",
    "exp": NOW + 3600,
    "iat": NOW,
    "sub": "0a1b2c3d-0000-4000-8000-00000000000a",
    "role": "authenticated",
    "aal": "aal1",
    "session_id": "6f1f2f0a-8f5e-4c2c-9d2c-0a6b6d3f1e11",
    "email": "alice@example.org",
}
EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EDWARDS = ed25519.Ed25519PrivateKey.generate()
SIGNERS: dict[str, Any] = {"ES256": EC, "RS256": RSA, "EdDSA": EDWARDS, "HS256": SECRET}
LISTED = (
    ECAlgorithm.to_jwk(EC.public_key(), as_dict=True) | {"kid": "ES256"},
    RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True) | {"kid": "RS256"},
    OKPAlgorithm.to_jwk(EDWARDS.public_key(), as_dict=True) | {"kid": "EdDSA"},
)
TOKENS = {
    name: jwt.encode(CLAIMS, signer, algorithm=name, headers={"kid": name}).encode()
    for name, signer in SIGNERS.items()
}


class MutationCase(SynchronousTestCase):
    """With a gate that accepts all four algorithms, so that a change has most ways to succeed."""

    def setUp(self) -> None:
        keys = StaticKeys([read_key(jwk) for jwk in LISTED])
        issuer = Issuer(Policy(ISSUER), keys, secret_key(SECRET))
        self.gate = TokenGate([issuer], lambda: NOW, max_entries=0)

    def accepts(self, token: bytes) -> bool:
        try:
            self.gate.verify(token).send(None)
        except StopIteration:
            return True
        except Unauthorized:
            return False
        raise AssertionError("the gate waits for something")


class ValidTests(MutationCase):
    def test_each_is_valid_unchanged(self) -> None:
        for name, token in TOKENS.items():
            self.assertTrue(self.accepts(token), name)
            self.assertEqual(self.gate.remembered, 0)


class BitTests(MutationCase):
    """Each byte of the token in turn, and of it each bit."""

    def flip(self, name: str) -> None:
        token = TOKENS[name]
        for place in range(len(token)):
            for bit in range(8):
                changed = bytearray(token)
                changed[place] ^= 1 << bit
                self.assertFalse(self.accepts(bytes(changed)), (name, place, bit))

    def test_es256(self) -> None:
        self.flip("ES256")

    def test_rs256(self) -> None:
        self.flip("RS256")

    def test_eddsa(self) -> None:
        self.flip("EdDSA")

    def test_hs256(self) -> None:
        self.flip("HS256")


class SpellingTests(MutationCase):
    def test_each_byte_as_every_other_of_the_alphabet(self) -> None:
        """In the signature, where nothing but the signature check notices."""
        alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        for name in ("EdDSA", "HS256"):
            token = TOKENS[name]
            for place in range(token.rindex(b".") + 1, len(token)):
                valid = [
                    byte
                    for byte in alphabet
                    if self.accepts(token[:place] + bytes([byte]) + token[place + 1 :])
                ]
                self.assertEqual(valid, [token[place]], (name, place))

    def test_every_spelling_of_the_last_byte(self) -> None:
        """Its spare bits must not make several tokens of one."""
        for name, token in TOKENS.items():
            valid = [byte for byte in range(256) if self.accepts(token[:-1] + bytes([byte]))]
            self.assertEqual(valid, [token[-1]], name)

    def test_parts_of_several_tokens(self) -> None:
        parts = {name: token.split(b".") for name, token in TOKENS.items()}
        for header in parts:
            for signature in set(parts) - {header}:
                mixed = b".".join((*parts[header][:2], parts[signature][2]))
                self.assertFalse(self.accepts(mixed), (header, signature))


class CutTests(MutationCase):
    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_cuts_insertions_and_swaps(self, data: st.DataObject) -> None:
        token = TOKENS[data.draw(st.sampled_from(sorted(TOKENS)))]
        start = data.draw(st.integers(0, len(token)))
        end = data.draw(st.integers(start, min(len(token), start + 40)))
        instead = data.draw(st.binary(max_size=40))
        changed = token[:start] + instead + token[end:]
        if changed != token:
            self.assertFalse(self.accepts(changed), changed)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=300))
    def test_noise(self, noise: bytes) -> None:
        self.assertFalse(self.accepts(noise))
