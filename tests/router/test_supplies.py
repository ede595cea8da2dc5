"""What an operator must supply, and how they hear what is missing."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import ClassVar
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.router.supplies import from_settings
from matrix.settings import load

GIVEN = {
    "DATABASE_URL": "postgresql://matrix:hidden-password@db/matrix",
    "MATRIX_ISSUER": "https://ref.supabase.co/auth/v1",
    "MATRIX_DAEMON_TOKEN": "d" * 40,
    "MATRIX_TLS_CERT": "/etc/matrix/cert.pem",
    "MATRIX_TLS_KEY": "/etc/matrix/key.pem",
}


class SuppliesTests(SynchronousTestCase):
    names: ClassVar = ("DATABASE_URL", "MATRIX_ISSUER", "MATRIX_DAEMON_TOKEN", "MATRIX_TLS_CERT")

    def supplies(self, **changes: str) -> object:
        environment = {k: v for k, v in {**GIVEN, **changes}.items() if v}
        with mock.patch.dict(os.environ, environment, clear=True):
            return from_settings(load())

    def test_everything_given(self) -> None:
        supplies = self.supplies()
        self.assertEqual(supplies.dsn, GIVEN["DATABASE_URL"])
        self.assertEqual(supplies.issuer, GIVEN["MATRIX_ISSUER"])
        self.assertEqual(supplies.master, GIVEN["MATRIX_DAEMON_TOKEN"])
        self.assertEqual((supplies.admin_token, supplies.links), (None, None))

    def test_the_keys_are_where_the_issuer_keeps_them_unless_said_otherwise(self) -> None:
        self.assertEqual(
            self.supplies().jwks_url, "https://ref.supabase.co/auth/v1/.well-known/jwks.json"
        )
        told = self.supplies(MATRIX_JWKS_URL="https://keys.example/jwks")
        self.assertEqual(told.jwks_url, "https://keys.example/jwks")

    def test_a_slash_at_the_end_of_the_issuer_is_not_doubled(self) -> None:
        told = self.supplies(MATRIX_ISSUER="https://a.example/")
        self.assertEqual(told.jwks_url, "https://a.example/.well-known/jwks.json")

    def test_an_issuer_that_is_configured_twice(self) -> None:
        other = '{"issuer": "https://b.example/auth/v1"}'
        self.supplies(MATRIX_OTHER_ISSUERS=f"[{other}]")
        main = json.dumps({"issuer": GIVEN["MATRIX_ISSUER"]})
        for others in (f"[{other}, {other}]", f"[{main}]"):
            with self.assertRaises(ConfigurationError) as caught:
                self.supplies(MATRIX_OTHER_ISSUERS=others)
            self.assertIn("MATRIX_OTHER_ISSUERS", str(caught.exception))

    def test_an_admin_token_may_be_given(self) -> None:
        self.assertEqual(self.supplies(MATRIX_ADMIN_TOKEN="admin").admin_token, "admin")

    def test_whatever_is_missing_is_named(self) -> None:
        for count in range(1, 5):
            for missing in itertools.combinations(self.names, count):
                changes = dict.fromkeys(missing, "")
                if "MATRIX_TLS_CERT" in missing:
                    changes["MATRIX_TLS_KEY"] = ""
                with self.assertRaises(ConfigurationError) as caught:
                    self.supplies(**changes)
                text = str(caught.exception)
                self.assertNotIn("\n", text)
                for name in self.names:
                    self.assertEqual(name in text, name in missing, f"{name} in {text!r}")
                self.assertIn("--embedded", text)

    def test_secrets_show_in_no_repr(self) -> None:
        text = repr(self.supplies(MATRIX_ADMIN_TOKEN="an-admin-token"))
        for secret in ("hidden-password", "d" * 40, "an-admin-token"):
            self.assertNotIn(secret, text)

    def test_paths_are_not_checked_here(self) -> None:
        self.assertFalse(Path(GIVEN["MATRIX_TLS_CERT"]).exists())
        self.supplies()
