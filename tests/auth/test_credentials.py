"""Where a token is found, which cookies are stripped, and when a cookie may be used."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import (
    Credential,
    Source,
    allows_set_cookie,
    check_origin,
    find_token,
    without_session_cookies,
)
from matrix.errors import BadRequest, Forbidden
from matrix.testing.exchange import FakeRequest

HEADER = Source.AUTHORIZATION
COOKIE = Source.SESSION


def request(*headers: tuple[bytes, bytes]) -> FakeRequest:
    return FakeRequest(headers=headers)


class FindTokenTests(SynchronousTestCase):
    def found(self, *headers: tuple[bytes, bytes]) -> Credential | None:
        return find_token(request(*headers))

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


SESSION_NAMES = (
    b"__Host-matrix",
    b"sb-abcdefgh-auth-token",
    b"sb-127-auth-token.0",
    b"sb-auth-auth-token.12",
    b"sb-abc-auth-token-code-verifier",
    b"sb-abc-auth-token-user",
)
OTHER_NAMES = (b"theme", b"sb-abc-auth", b"xsb-a-auth-token", b"__Host-matrix2", b"matrix", b"")

name_bytes = st.binary(max_size=12).map(lambda raw: re.sub(rb"[;=\x00-\x20\x7f]", b"_", raw))
value_bytes = st.binary(max_size=20).map(lambda raw: raw.replace(b";", b","))
others = st.builds(
    lambda name, value: name + b"=" + value,
    name_bytes | st.sampled_from(OTHER_NAMES),
    value_bytes.map(lambda raw: raw.strip(b" \t")),
) | st.sampled_from((b"bare", b"a=b=c", b'q="x y"'))
sessions = st.builds(
    lambda name, value: name + b"=" + value, st.sampled_from(SESSION_NAMES), value_bytes
)


class WithoutSessionCookiesTests(SynchronousTestCase):
    def test_table(self) -> None:
        for cookie, remaining in (
            (b"a=b", b"a=b"),
            (b"", b""),
            (b"__Host-matrix=t", None),
            (b" __Host-matrix=t ; ", None),
            (b"__Host-matrix=t; a=b", b"a=b"),
            (b"a=b; __Host-matrix=t", b"a=b"),
            (b"a=b; __Host-matrix=t; c=d", b"a=b; c=d"),
            (b"a=b;__Host-matrix=t;c=d", b"a=b;c=d"),
            (b"__Host-matrix =t; a=b", b"a=b"),
            (b"__Host-matrix; a=b", b"a=b"),
            (b"sb-a-auth-token.0=x; sb-a-auth-token.1=y; a=b", b"a=b"),
            (b"sb-a-auth-token-code-verifier=x", None),
            (b"sb-my-shop-auth-token=x", None),
            (
                b"note=sb-a-auth-token; x=__Host-matrix=1",
                b"note=sb-a-auth-token; x=__Host-matrix=1",
            ),
            (b"  a = b ;; c", b"  a = b ;; c"),
            (b"  a = b ;; __Host-matrix=t;  c", b"  a = b ;;  c"),
        ):
            self.assertEqual(without_session_cookies(cookie), remaining, cookie)

    def test_other_cookies_come_back_as_the_same_object(self) -> None:
        cookie = b"theme=dark; x-auth-token=1"
        self.assertIs(without_session_cookies(cookie), cookie)

    @given(st.lists(others | sessions, max_size=8), st.sampled_from((b"; ", b";", b";  ")))
    def test_what_is_not_ours_stays_to_the_byte(self, cookies: list[bytes], between: bytes) -> None:
        ours = re.compile(rb"(?s)__Host-matrix=.*|sb-[^=]*-auth-token[^=]*=.*")
        kept = [cookie for cookie in cookies if not ours.fullmatch(cookie)]
        result = without_session_cookies(between.join(cookies))
        if len(kept) == len(cookies):
            self.assertEqual(result, between.join(cookies))
        elif not b"".join(kept):
            self.assertIsNone(result)
        else:
            self.assertEqual(result, between.join(kept).lstrip(b" "))

    @given(st.binary(max_size=200))
    def test_no_session_cookie_is_left_in_any_noise(self, noise: bytes) -> None:
        for cookie in (noise + b";__Host-matrix=secret", b"__Host-matrix=secret;" + noise):
            result = without_session_cookies(cookie)
            if b"secret" not in noise:
                self.assertNotIn(b"secret", result or b"")
            again = None if result is None else without_session_cookies(result)
            self.assertEqual(again, result)

    @given(st.binary(max_size=100))
    def test_what_is_found_is_what_is_stripped(self, noise: bytes) -> None:
        """After stripping, no session cookie can be found any more."""
        result = without_session_cookies(b"a=b; __Host-matrix=t;" + noise)
        if result is not None:
            self.assertIsNone(find_token(request((b"cookie", result))))


class AllowsSetCookieTests(SynchronousTestCase):
    """A machine must not sign its visitor in as somebody else."""

    def test_session_cookies_are_not_for_machines(self) -> None:
        for name in SESSION_NAMES:
            for value in (
                name + b"=x; Path=/; Secure",
                name + b" = x",
                b" \t" + name + b"=x",
                name + b"=",
                name,
                b"=" + name + b"=x",
                b" = " + name + b"=x",
            ):
                self.assertFalse(allows_set_cookie(value), value)

    def test_others_are(self) -> None:
        for name in OTHER_NAMES:
            self.assertTrue(allows_set_cookie(name + b"=x; Path=/"), name)
        self.assertTrue(allows_set_cookie(b"note=__Host-matrix=x"))

    @given(others | sessions)
    def test_what_is_stripped_from_requests_cannot_be_set(self, cookie: bytes) -> None:
        if without_session_cookies(cookie) is None:
            self.assertFalse(allows_set_cookie(cookie))


class CheckOriginTests(SynchronousTestCase):
    HOST = b"matrix.example"
    OWN = b"https://matrix.example"

    def allowed(
        self,
        method: bytes,
        origin: bytes | None,
        *,
        host: bytes | None = HOST,
        upgrade: bool = False,
        source: Source = COOKIE,
    ) -> bool:
        try:
            check_origin(Credential(b"t", source), method, origin, host, upgrade)
        except Forbidden as error:
            self.assertEqual((error.status, error.reason), (403, "origin"))
            return False
        return True

    def test_safe_methods_need_none(self) -> None:
        for method in (b"GET", b"HEAD", b"OPTIONS"):
            self.assertTrue(self.allowed(method, None))
            self.assertTrue(self.allowed(method, b"https://evil.example"))

    def test_unsafe_methods_and_upgrades_need_ours(self) -> None:
        for method, upgrade in (
            (b"POST", False),
            (b"PUT", False),
            (b"PATCH", False),
            (b"DELETE", False),
            (b"PROPFIND", False),
            (b"get", False),
            (b"GET", True),
        ):
            self.assertTrue(self.allowed(method, self.OWN, upgrade=upgrade), method)
            for origin in (
                None,
                b"",
                b"null",
                b"https://evil.example",
                b"http://matrix.example",
                b"https://matrix.example.evil.example",
                b"https://bob.matrix.example",
                b"https://evil.example/https://matrix.example",
                b"https://matrix.example, https://evil.example",
                b"https://matrix.example:8443",
                b"https://matrix.example/",
                b"matrix.example",
            ):
                self.assertFalse(self.allowed(method, origin, upgrade=upgrade), origin)

    def test_case_and_default_port_do_not_matter(self) -> None:
        self.assertTrue(self.allowed(b"POST", self.OWN, host=b"Matrix.Example"))
        self.assertTrue(self.allowed(b"POST", self.OWN, host=b"matrix.example:443"))
        self.assertTrue(self.allowed(b"POST", b"https://localhost:8443", host=b"localhost:8443"))
        self.assertFalse(self.allowed(b"POST", b"https://localhost", host=b"localhost:8443"))

    def test_no_host_is_nobodys_page(self) -> None:
        self.assertFalse(self.allowed(b"POST", b"https://", host=None))

    def test_a_program_with_a_token_needs_none(self) -> None:
        """A page cannot make a browser add an Authorization field for another site."""
        for origin in (None, b"https://evil.example"):
            self.assertTrue(self.allowed(b"POST", origin, source=HEADER))
            self.assertTrue(self.allowed(b"GET", origin, source=HEADER, upgrade=True))
