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


def websocket(*headers: tuple[bytes, bytes]) -> FakeRequest:
    return request((b"upgrade", b"websocket"), (b"connection", b"upgrade"), *headers)


class PlaceTests(SynchronousTestCase):
    """Which place counts where several have something."""

    AUTHORIZATION = (b"authorization", b"Bearer a.a.a")
    OFFER = (b"sec-websocket-protocol", b"matrix, matrix.jwt.b.b.b")
    OWN = (b"cookie", b"__Host-matrix=c")
    THEIRS = (b"cookie", b"sb-abc-auth-token=%7B%22access_token%22%3A%22d.d.d%22%7D")

    def test_what_was_meant_is_asked_for_first(self) -> None:
        for headers, found in (
            ((self.AUTHORIZATION, self.OFFER), (b"a.a.a", Source.AUTHORIZATION)),
            ((self.OFFER, self.OWN), (b"b.b.b", Source.SUBPROTOCOL)),
            ((self.OWN, self.THEIRS), None),
        ):
            self.assertEqual(PLACES.given(websocket(*headers)), found)

    def test_our_own_cookie_counts_before_supabases(self) -> None:
        both = (b"cookie", self.THEIRS[1] + b"; " + self.OWN[1])
        self.assertEqual(PLACES.ambient(request(both)), (b"c", Source.SESSION))
        self.assertEqual(PLACES.ambient(request(self.THEIRS)), (b"d.d.d", Source.SUPABASE_COOKIE))
        empty = (b"cookie", self.THEIRS[1] + b"; __Host-matrix=")
        self.assertEqual(PLACES.ambient(request(empty)), (b"d.d.d", Source.SUPABASE_COOKIE))

    def test_a_ticket_counts_before_a_token_in_the_query(self) -> None:
        places = Places(query_token=True)
        both = b"/?access_token=a.a.a&matrix_ticket=t"
        self.assertEqual(places.in_query(both), (b"t", Source.TICKET))
        self.assertEqual(places.in_query(b"/?access_token=a.a.a"), (b"a.a.a", Source.QUERY))
        self.assertIsNone(places.in_query(b"/?x=1"))

    def test_a_token_in_the_query_counts_only_if_it_is_allowed(self) -> None:
        self.assertIsNone(PLACES.in_query(b"/?access_token=a.a.a"))
        self.assertEqual(PLACES.without_query(b"/?access_token=a"), b"/?access_token=a")
        self.assertEqual(PLACES.without_query(b"/?matrix_ticket=a"), b"/")


class StripTests(SynchronousTestCase):
    """What a machine sees of the fields that may hold a secret."""

    def test_each_field(self) -> None:
        places = Places(b"mine", query_token=True)
        for name, value, seen in (
            (b"cookie", b"a=b; mine=x; mine.0=y; mine-user=z; miner=1", b"a=b; miner=1"),
            (b"cookie", b"mine-code-verifier=x; mine-flow-abcdefgh-code-verifier=y", None),
            (b"cookie", b"mine-flows-code-verifier=x; mine-theme=dark", b"mine-theme=dark"),
            (b"sec-websocket-protocol", b"jwt-a.b.c, chat", b"chat"),
            (b"referer", b"https://door/a?access_token=t&x=1", b"https://door/a?x=1"),
            (b"referer", b"https://door/a?x=1", b"https://door/a?x=1"),
        ):
            self.assertEqual(places.strip[name](value), seen, value)
            self.assertTrue(places.allows_set_cookie(b"miner=1"))
            self.assertFalse(places.allows_set_cookie(b"mine.3=1"))
