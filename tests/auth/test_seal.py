"""Handles and sealed tokens: each opens its own and nothing else."""

from __future__ import annotations

import string
from base64 import urlsafe_b64decode, urlsafe_b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Handles, Latchkey
from matrix.auth._seal import HANDLE
from matrix.auth.derive import BROWSER_SESSIONS, MachineSecrets, derive_key
from matrix.model import UserId

MASTER = "m" * 40
USER = UserId("0a1b2c3d-0000-4000-8000-00000000000a")


class HandleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.handles = Handles(MASTER)
        self.latchkey = Latchkey.new()
        self.handle = self.handles.write(self.latchkey)

    def test_a_handle_holds_its_latchkey(self) -> None:
        self.assertEqual(self.handles.read(self.handle), self.latchkey)
        self.assertEqual(Handles(MASTER).read(self.handle), self.latchkey, "at any router")

    def test_it_can_be_in_a_cookie(self) -> None:
        allowed = (string.ascii_letters + string.digits + "-_").encode()
        self.assertEqual(len(self.handle), HANDLE)
        self.assertLessEqual(set(self.handle), set(allowed))

    def test_no_two_are_alike(self) -> None:
        self.assertNotEqual(self.handles.write(self.latchkey), self.handle)
        self.assertNotEqual(Latchkey.new(), Latchkey.new())

    def test_another_master_secret_opens_none(self) -> None:
        self.assertIsNone(Handles("n" * 40).read(self.handle))

    def test_no_changed_byte_goes_unnoticed(self) -> None:
        for place in range(len(self.handle)):
            for other in b"AZ9-_.=\x00\xff":
                if other != self.handle[place]:
                    changed = bytearray(self.handle)
                    changed[place] = other
                    self.assertIsNone(self.handles.read(bytes(changed)), (place, other))

    def test_each_handle_has_one_form(self) -> None:
        raw = urlsafe_b64decode(self.handle + b"==")
        last = self.handle[-1:]
        alphabet = (string.ascii_letters + string.digits + "-_").encode()
        same = [
            bytes([each])
            for each in alphabet
            if urlsafe_b64decode(self.handle[:-1] + bytes([each]) + b"==") == raw
        ]
        self.assertGreater(len(same), 1, "the last character has bits to spare")
        read = [end for end in same if self.handles.read(self.handle[:-1] + end)]
        self.assertEqual(read, [last])

    @given(st.binary(max_size=150))
    def test_what_is_none_is_none(self, data: bytes) -> None:
        handles = Handles(MASTER)
        self.assertIsNone(handles.read(data))
        self.assertIsNone(handles.read(urlsafe_b64encode(data).rstrip(b"=")[:HANDLE]))

    def test_secrets_are_in_no_repr(self) -> None:
        text = repr(self.handles) + repr(self.latchkey)
        self.assertNotIn(MASTER, text)
        self.assertNotIn(repr(self.latchkey.key)[2:-1], text)

    def test_its_key_is_no_machines_secret(self) -> None:
        key = derive_key(MASTER, BROWSER_SESSIONS)
        secret = MachineSecrets(MASTER).derive(BROWSER_SESSIONS, USER, 1)
        self.assertNotEqual(urlsafe_b64encode(key).rstrip(b"=").decode(), secret)
        self.assertNotEqual(key, derive_key(MASTER, "another"))


class LatchkeyTests(SynchronousTestCase):
    @given(st.binary(max_size=5000))
    def test_what_was_sealed_is_opened(self, text: bytes) -> None:
        latchkey = Latchkey.new()
        self.assertEqual(latchkey.open(latchkey.seal(text)), text)

    def test_another_sign_ins_key_opens_nothing(self) -> None:
        latchkey, other = Latchkey.new(), Latchkey.new()
        sealed = latchkey.seal(b"tokens")
        self.assertIsNone(other.open(sealed))
        self.assertIsNone(Latchkey(latchkey.id, other.key).open(sealed))

    def test_a_row_put_in_anothers_place_is_not_opened(self) -> None:
        latchkey = Latchkey.new()
        moved = Latchkey(Latchkey.new().id, latchkey.key)
        self.assertIsNone(moved.open(latchkey.seal(b"tokens")))

    def test_damage_is_noticed(self) -> None:
        latchkey = Latchkey.new()
        sealed = latchkey.seal(b"tokens")
        for damaged in (b"", sealed[:5], sealed[:-1], sealed + b"x", b"\0" + sealed[1:]):
            if damaged != sealed:
                self.assertIsNone(latchkey.open(damaged))

    def test_nothing_is_sealed_alike_twice(self) -> None:
        latchkey = Latchkey.new()
        self.assertNotEqual(latchkey.seal(b"tokens"), latchkey.seal(b"tokens"))
