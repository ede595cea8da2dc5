"""Supabase's session in cookies: each way in which it may arrive, row by row and at random."""

from __future__ import annotations

import json
from itertools import pairwise
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import supabase_cookie_name
from matrix.auth._cookies import SessionCookies
from matrix.auth._ssr import access_token
from matrix.testing import cookies as written

NAME = "sb-ref-auth-token"
SESSION = {
    "access_token": "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
    "token_type": "bearer",
    "expires_in": 3600,
    "expires_at": 1_795_000_000,
    "refresh_token": "v1.refresh",
    "user": {"id": "0a1b2c3d-0000-4000-8000-00000000000a", "email": "zoë@example.org"},
}
OLDER = {**SESSION, "access_token": "eyJhbGciOiJFUzI1NiJ9.b2xk.c2ln"}
TOKEN = SESSION["access_token"].encode()  # type: ignore[attr-defined]


def read(pairs: list[tuple[str, str]], name: str = NAME) -> bytes | None:
    """The token in a C{Cookie} field of these."""
    field = written.field_of(pairs).encode("latin-1")
    return SessionCookies(name.encode()).supabase(field)


def session_of(token: str, note: str) -> str:
    return json.dumps({"access_token": token, "user": {"note": note}}, ensure_ascii=False)


class NameTests(SynchronousTestCase):
    """What the cookie is called unless somebody names it."""

    def test_it_is_the_first_label_of_the_host(self) -> None:
        for issuer, name in (
            ("https://abcdefgh.supabase.co/auth/v1", "sb-abcdefgh-auth-token"),
            ("https://auth.example.com/auth/v1", "sb-auth-auth-token"),
            ("http://127.0.0.1:54321/auth/v1", "sb-127-auth-token"),
            ("https://localhost:1/auth/v1", "sb-localhost-auth-token"),
            ("https://ABC.supabase.co/auth/v1", "sb-abc-auth-token"),
        ):
            self.assertEqual(supabase_cookie_name(issuer), name, issuer)


class CaseTests(SynchronousTestCase):
    """Every known way, as C{@supabase/ssr} itself reads it."""

    def test_each_case(self) -> None:
        for label, case in written.cases(SESSION, OLDER, NAME).items():
            with self.subTest(case=label):
                found = SessionCookies(NAME.encode()).supabase(case.field.encode("latin-1"))
                self.assertEqual(found, TOKEN if case.good else None)

    def test_a_huge_one(self) -> None:
        pairs = written.huge(SESSION, 60_000, NAME)
        self.assertGreater(len(pairs), 15)
        self.assertEqual(read(pairs), TOKEN)

    def test_odd_values(self) -> None:
        single = written.ssr_cookies(SESSION, NAME)[0][1]
        plain = json.dumps(SESSION)
        even = json.dumps({"access_token": SESSION["access_token"], "x": "y"})
        even += " " * (-len(even) % 3)  # so that its base64 ends with whole bytes
        for value, good in (
            (single + "==", True),
            (single[:30] + " \t" + single[30:], True),
            (written.ssr_cookies(even, NAME)[0][1] + "A", True),  # six bits too many
            (quote(single), True),
            (quote(plain), True),
            (plain.replace(";", ""), True),
            (single.replace("base64-", "base64_"), False),
            ("base64-" + single, False),
            (single.replace("-", "+", 2), False),
            ("%" + quote(plain), False),
            ("%ff", False),
            ("null", False),
            ("[]", False),
            ('"text"', False),
            ("1" * 5000, False),
            ("[" * 60_000, False),
            ('{"access_token":' * 9_000, False),
            ('{"access_token":null}', False),
            ('{"access_token":""}', False),
            ('{"access_token":["a"]}', False),
            ('{"access_token":"\\u00e9.a.b"}', False),
            ('{"access_token":"\\ud800"}', False),
        ):
            with self.subTest(value=value[:40]):
                self.assertEqual(read([(NAME, value)]) == TOKEN, good)

    def test_the_first_of_a_name_counts(self) -> None:
        first, second = written.ssr_cookies(SESSION, NAME), written.ssr_cookies(OLDER, NAME)
        self.assertEqual(read([*first, *second]), TOKEN)

    def test_a_name_of_the_applications_own(self) -> None:
        pairs = written.ssr_cookies(written.in_chunks(SESSION, 3), "my.session")
        self.assertEqual(read(pairs, "my.session"), TOKEN)
        self.assertIsNone(read(pairs, "myXsession"))

    def test_without_a_name_none_is_taken(self) -> None:
        field = written.field_of(written.ssr_cookies(SESSION, NAME)).encode()
        self.assertIsNone(SessionCookies().supabase(field))


texts = st.text(st.characters(codec="utf-8"), max_size=300)
tokens = st.text("abcXYZ019-_.", min_size=1, max_size=80)


class PropertyTests(SynchronousTestCase):
    """What holds for any session, split in any way."""

    @given(tokens, texts, st.integers(8, 300), st.sampled_from(("base64url", "raw")))
    def test_any_session_in_chunks_of_any_size_is_read(
        self, token: str, note: str, size: int, encoding: written.Encoding
    ) -> None:
        size = max(size, 24)  # an escaped character of four bytes, twice
        pairs = written.ssr_cookies(session_of(token, note), NAME, encoding, size)
        self.assertEqual(read(pairs), token.encode())

    @given(tokens, texts, st.data())
    def test_any_split_of_the_value_is_put_together(
        self, token: str, note: str, data: st.DataObject
    ) -> None:
        [(_, value)] = written.ssr_cookies(session_of(token, note), NAME, size=10**6)
        cuts = data.draw(st.lists(st.integers(1, len(value) - 1), unique=True, max_size=6))
        edges = [0, *sorted(cuts), len(value)]
        parts = [value[a:b] for a, b in pairwise(edges)]
        pairs = [(f"{NAME}.{place}", part) for place, part in enumerate(parts)]
        shuffled = data.draw(st.permutations(pairs))
        self.assertEqual(read(list(shuffled)), token.encode())

    @given(tokens, texts, st.integers(1, 9), st.text("abc%{}-.", max_size=40))
    def test_what_stands_behind_a_gap_does_not_matter(
        self, token: str, note: str, gap: int, stale: str
    ) -> None:
        pairs = written.ssr_cookies(session_of(token, note), NAME, size=50)
        place = len(pairs) + gap if len(pairs) > 1 else 1 + gap
        self.assertEqual(read([(f"{NAME}.{place}", stale), *pairs]), token.encode())

    @given(tokens, tokens, texts)
    def test_the_unchunked_one_wins(self, token: str, other: str, note: str) -> None:
        single = written.ssr_cookies(session_of(token, note), NAME, size=10**6)
        chunks = written.ssr_cookies(session_of(other, note), NAME, size=40)
        self.assertEqual(read([*chunks, *single]), token.encode())
        self.assertEqual(read([*single, *chunks]), token.encode())

    @given(
        st.dictionaries(
            st.sampled_from([NAME.encode()] + [b"%b.%d" % (NAME.encode(), n) for n in range(4)]),
            st.binary(max_size=80) | st.binary(max_size=60).map(lambda noise: b"base64-" + noise),
        )
    )
    def test_garbage_is_no_session_and_no_error(self, found: dict[bytes, bytes]) -> None:
        self.assertIsNone(access_token(found, NAME.encode()))

    @given(st.binary(max_size=300))
    def test_nor_is_any_noise_in_the_field(self, noise: bytes) -> None:
        field = NAME.encode() + b"=" + noise
        self.assertIsNone(SessionCookies(NAME.encode()).supabase(field))
