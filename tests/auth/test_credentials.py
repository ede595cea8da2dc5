"""Where a credential is found, and what is stripped of a request."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Credential, Places, Source
from matrix.errors import BadRequest
from matrix.testing.exchange import FakeRequest

HEADER = Source.AUTHORIZATION
COOKIE = Source.SESSION
PLACES = Places(b"sb-abc-auth-token")


def request(*headers: tuple[bytes, bytes]) -> FakeRequest:
    return FakeRequest(headers=headers)


class HeaderBlockTests(SynchronousTestCase):
    def found(self, *headers: tuple[bytes, bytes]) -> Credential | None:
        asked = request(*headers)
        return PLACES.given(asked) or PLACES.ambient(asked)

    def test_nothing(self) -> None:
        self.assertIsNone(self.found())
        self.assertIsNone(self.found((b"authorization", b""), (b"cookie", b"")))

    def test_authorization(self) -> None:
        for value in (b"Bearer a.b.c", b"bearer a.b.c", b"BEARER a.b.c", b"Bearer   a.b.c "):
            self.assertEqual(self.found((b"authorization", value)), (b"a.b.c", HEADER), value)

    def test_bearer_without_a_token_is_a_credential_that_will_be_refused(self) -> None:
        for value in (b"Bearer", b"bearer ", b"Bearer    "):
            self.assertEqual(self.found((b"authorization", value)), (b"", HEADER), value)

    def test_other_schemes_belong_to_somebody_else(self) -> None:
        for value in (
            b"Basic YWxpY2U6c2VjcmV0",
            b'Digest username="a", realm="b", uri="/"',
            b"Bearers a.b.c",
            b"Bear er",
            b"Bearer\ta.b.c",
            b"a.b.c",
        ):
            self.assertIsNone(self.found((b"authorization", value)), value)
            both = self.found((b"authorization", value), (b"cookie", b"__Host-matrix=x.y.z"))
            self.assertEqual(both, (b"x.y.z", COOKIE), value)

    def test_two_authorizations(self) -> None:
        for first, second in (
            (b"Bearer a.b.c", b"Bearer d.e.f"),
            (b"Bearer a.b.c", b"Bearer a.b.c"),
            (b"Basic eA==", b"Bearer a.b.c"),
            (b"", b"Bearer a.b.c"),
            (b"Bearer a.b.c", b""),
        ):
            with self.assertRaises(BadRequest) as caught:
                self.found((b"authorization", first), (b"authorization", second))
            self.assertEqual(caught.exception.reason, "two-authorizations")

    def test_cookie(self) -> None:
        for value in (
            b"__Host-matrix=a.b.c",
            b"theme=dark; __Host-matrix=a.b.c; lang=de",
            b"theme=dark;__Host-matrix=a.b.c;lang=de",
            b"theme=dark ;\t__Host-matrix=a.b.c\t; lang",
            b"; ;=;__Host-matrix=a.b.c",
            b'q="x;__Host-matrix=a.b.c',
        ):
            self.assertEqual(self.found((b"cookie", value)), (b"a.b.c", COOKIE), value)

    def test_cookies_that_only_look_like_ours(self) -> None:
        for value in (
            b"__host-matrix=a.b.c",
            b"__Host-matrix2=a.b.c",
            b"x__Host-matrix=a.b.c",
            b"x=__Host-matrix=a.b.c",
            b"=__Host-matrix=a.b.c",
            b"__Host-matrix =a.b.c",
            b"__Host-matrix",
            b"__Host-matrix=",
            b"sb-abc-auth-token=a.b.c",
        ):
            self.assertIsNone(self.found((b"cookie", value)), value)

    def test_two_session_cookies(self) -> None:
        with self.assertRaises(BadRequest) as caught:
            self.found((b"cookie", b"__Host-matrix=a.b.c; x=y; __Host-matrix=d.e.f"))
        self.assertEqual(caught.exception.reason, "two-session-cookies")

    def test_authorization_wins_over_the_cookie(self) -> None:
        found = self.found((b"cookie", b"__Host-matrix=x.y.z"), (b"authorization", b"Bearer a.b.c"))
        self.assertEqual(found, (b"a.b.c", HEADER))

    def test_a_credential_shows_no_token(self) -> None:
        credential = Credential(b"a.b.c", COOKIE)
        for text in (repr(credential), str(credential), f"{credential}", f"{[credential]}"):
            self.assertNotIn("a.b.c", text)
        self.assertEqual(repr(credential), "<Credential from session>")
