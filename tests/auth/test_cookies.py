"""Which cookies sign somebody in, which are stripped, and which no machine may set."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth._cookies import SessionCookies

COOKIES = SessionCookies(b"sb-abcdefgh-auth-token")

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


class WithoutTests(SynchronousTestCase):
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
            self.assertEqual(COOKIES.without(cookie), remaining, cookie)

    def test_other_cookies_come_back_as_the_same_object(self) -> None:
        cookie = b"theme=dark; x-auth-token=1"
        self.assertIs(COOKIES.without(cookie), cookie)

    @given(st.lists(others | sessions, max_size=8), st.sampled_from((b"; ", b";", b";  ")))
    def test_what_is_not_ours_stays_to_the_byte(self, cookies: list[bytes], between: bytes) -> None:
        ours = re.compile(rb"(?s)__Host-matrix=.*|sb-[^=]*-auth-token[^=]*=.*")
        kept = [cookie for cookie in cookies if not ours.fullmatch(cookie)]
        result = COOKIES.without(between.join(cookies))
        if len(kept) == len(cookies):
            self.assertEqual(result, between.join(cookies))
        elif not b"".join(kept):
            self.assertIsNone(result)
        else:
            self.assertEqual(result, between.join(kept).lstrip(b" "))

    @given(st.binary(max_size=200))
    def test_no_session_cookie_is_left_in_any_noise(self, noise: bytes) -> None:
        for cookie in (noise + b";__Host-matrix=secret", b"__Host-matrix=secret;" + noise):
            result = COOKIES.without(cookie)
            if b"secret" not in noise:
                self.assertNotIn(b"secret", result or b"")
            again = None if result is None else COOKIES.without(result)
            self.assertEqual(again, result)

    @given(st.binary(max_size=100))
    def test_what_is_found_is_what_is_stripped(self, noise: bytes) -> None:
        """After stripping, no session cookie can be found any more."""
        result = COOKIES.without(b"a=b; __Host-matrix=t;" + noise)
        if result is not None:
            self.assertIsNone(COOKIES.own(result))


class AllowsTests(SynchronousTestCase):
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
                self.assertFalse(COOKIES.allows(value), value)

    def test_others_are(self) -> None:
        for name in OTHER_NAMES:
            self.assertTrue(COOKIES.allows(name + b"=x; Path=/"), name)
        self.assertTrue(COOKIES.allows(b"note=__Host-matrix=x"))

    @given(others | sessions)
    def test_what_is_stripped_from_requests_cannot_be_set(self, cookie: bytes) -> None:
        if COOKIES.without(cookie) is None:
            self.assertFalse(COOKIES.allows(cookie))
