"""Where credentials may be, and which pages may use them, as the settings say."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Credential
from matrix.router.door import compass_for
from matrix.settings import Settings
from matrix.testing.exchange import FakeRequest

ISSUER = "https://abc.supabase.co/auth/v1"
SESSION = b"%7B%22access_token%22%3A%22a.b.c%22%7D"


class CompassTests(SynchronousTestCase):
    def found(self, cookie: bytes, **settings: Any) -> Credential | None:
        places = compass_for(Settings(**settings), ISSUER).places
        return places.ambient(FakeRequest(headers=[(b"cookie", cookie + b"=" + SESSION)]))

    def test_supabases_cookie_is_named_after_the_issuer(self) -> None:
        self.assertEqual(self.found(b"sb-abc-auth-token"), (b"a.b.c", "supabase-cookie"))
        self.assertIsNone(self.found(b"sb-xyz-auth-token"))

    def test_or_as_the_operator_says(self) -> None:
        self.assertIsNotNone(self.found(b"mine", supabase_cookie="mine"))
        self.assertIsNone(self.found(b"sb-abc-auth-token", supabase_cookie="mine"))

    def test_or_not_taken(self) -> None:
        for name in (b"sb-abc-auth-token", b"off"):
            self.assertIsNone(self.found(name, supabase_cookie="off"))

    def test_tokens_in_the_query_are_switched_on(self) -> None:
        target = b"/?access_token=a.b.c"
        self.assertIsNone(compass_for(Settings(), ISSUER).places.in_query(target))
        places = compass_for(Settings(query_token=True), ISSUER).places
        self.assertEqual(places.in_query(target), (b"a.b.c", "query"))

    def test_origins_are_listed(self) -> None:
        compass = compass_for(Settings(origins="https://a.example, https://b.example"), ISSUER)
        self.assertTrue(compass.origins.lists(b"https://b.example"))
        self.assertFalse(compass.origins.lists(b"https://c.example"))
