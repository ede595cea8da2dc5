"""Derived secrets: fixed for ever, apart from each other, and shown nowhere."""

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import MachineSecrets
from matrix.auth.derive import RESTIC_ACCOUNT, RESTIC_PASSWORD, SECRET_BYTES
from matrix.errors import ConfigurationError
from matrix.model import user_id

MASTER = "correct horse battery staple, twice over"
ALICE = user_id("6f1f2f0a-8f5e-4c2c-9d2c-0a6b6d3f1e11")
BOB = user_id("7f1f2f0a-8f5e-4c2c-9d2c-0a6b6d3f1e11")


class MachineSecretsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.secrets = MachineSecrets(MASTER)

    def test_never_change(self) -> None:
        """Machines hold these: computed here by RFC 5869's two steps, without the library."""
        import hmac
        from base64 import urlsafe_b64encode

        key = hmac.digest(b"matrix secrets v1", MASTER.encode(), "sha256")
        info = b"router-to-daemon\0" + ALICE.encode() + b"\x001"
        expected = urlsafe_b64encode(hmac.digest(key, info + b"\x01", "sha256")).rstrip(b"=")
        self.assertEqual(self.secrets.router_to_daemon(ALICE, 1), expected.decode())

    def test_are_the_same_in_every_process(self) -> None:
        again = MachineSecrets(MASTER)
        self.assertEqual(
            self.secrets.machine_to_router(ALICE, 3), again.machine_to_router(ALICE, 3)
        )

    def test_differ_by_purpose_user_epoch_and_master(self) -> None:
        made = [
            self.secrets.router_to_daemon(ALICE, 1),
            self.secrets.router_to_daemon(ALICE, 2),
            self.secrets.router_to_daemon(BOB, 1),
            self.secrets.machine_to_router(ALICE, 1),
            self.secrets.derive(RESTIC_PASSWORD, ALICE, 1),
            self.secrets.derive(RESTIC_ACCOUNT, ALICE, 1),
            MachineSecrets(MASTER + ".").router_to_daemon(ALICE, 1),
        ]
        self.assertEqual(len(set(made)), len(made))

    def test_are_plain_text_of_full_strength(self) -> None:
        secret = self.secrets.router_to_daemon(ALICE, 1)
        self.assertIsNotNone(re.fullmatch(r"[A-Za-z0-9_-]{43}", secret))
        self.assertEqual(SECRET_BYTES, 32)

    @given(st.integers(0, 2**31), st.integers(0, 2**31))
    def test_one_epoch_one_secret(self, first: int, second: int) -> None:
        same = self.secrets.derive("x", ALICE, first) == self.secrets.derive("x", ALICE, second)
        self.assertEqual(same, first == second)

    def test_a_short_master_is_refused(self) -> None:
        for short in ("", "secret", "x" * 31):
            with self.assertRaises(ConfigurationError) as caught:
                MachineSecrets(short)
            self.assertIn("MATRIX_DAEMON_TOKEN", str(caught.exception))
            self.assertNotIn("secret", str(caught.exception))
        MachineSecrets("x" * 32)

    def test_show_nothing(self) -> None:
        for text in (repr(self.secrets), str(self.secrets)):
            self.assertEqual(text, "<MachineSecrets>")
