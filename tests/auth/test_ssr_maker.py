"""The cookies that stand for C{@supabase/ssr}'s in tests: sizes, encodings, and broken ones."""

from __future__ import annotations

import json
from base64 import b64decode
from itertools import count
from typing import Any
from urllib.parse import unquote

from hypothesis import given, strategies
from twisted.trial.unittest import SynchronousTestCase

from matrix.testing.cookies import (
    CHUNK_SIZE,
    MARK,
    NAME,
    Cookies,
    cases,
    field_of,
    huge,
    in_chunks,
    ssr_cookies,
)

SESSION = {"access_token": "a" * 1200, "refresh_token": "r", "user": {"id": "1"}}
OLDER = {"access_token": "o" * 1200, "refresh_token": "s", "user": {"id": "1"}}


def read(cookies: Cookies) -> Any:
    """What a session's cookies hold, by the rules that C{@supabase/ssr} reads them by."""
    by_name = {name: unquote(value) for name, value in cookies}
    value = by_name.get(NAME, "")
    for place in count():
        if by_name.get(NAME) or not (chunk := by_name.get(f"{NAME}.{place}")):
            break
        value += chunk
    if value.startswith(MARK):
        encoded = value.removeprefix(MARK)
        padded = encoded + "=" * (-len(encoded) % 4)
        value = b64decode(padded, altchars=b"-_", validate=True).decode()
    return json.loads(value)


class MakerTests(SynchronousTestCase):
    def test_a_short_session_is_one_cookie(self) -> None:
        ((name, value),) = ssr_cookies(SESSION)
        self.assertEqual(name, "sb-localhost-auth-token")
        self.assertTrue(value.startswith(MARK))
        self.assertNotIn("=", value)
        self.assertEqual(read([(name, value)]), SESSION)

    def test_raw_is_escaped_json(self) -> None:
        ((_, value),) = ssr_cookies({"a": "é, 1"}, encoding="raw")
        self.assertEqual(value, "%7B%22a%22%3A%22%C3%A9%2C%201%22%7D")

    def test_chunks_are_numbered_and_full(self) -> None:
        for encoding in ("base64url", "raw"):
            for number in range(2, 6):
                session = in_chunks(SESSION, number, encoding)
                chunks = ssr_cookies(session, encoding=encoding)
                self.assertEqual(
                    [name for name, _ in chunks], [f"{NAME}.{i}" for i in range(number)]
                )
                for _, value in chunks[:-1]:
                    self.assertGreater(len(value), CHUNK_SIZE - 12)
                    self.assertLessEqual(len(value), CHUNK_SIZE)
                self.assertEqual(read(chunks), session)

    def test_only_the_first_chunk_is_marked(self) -> None:
        chunks = ssr_cookies(in_chunks(SESSION, 3))
        self.assertEqual([value.startswith(MARK) for _, value in chunks], [True, False, False])

    @given(strategies.text(max_size=60), strategies.integers(12, 40))
    def test_no_chunk_ends_within_a_character(self, text: str, size: int) -> None:
        chunks = ssr_cookies({"t": text}, encoding="raw", size=size)
        for _, value in chunks:
            self.assertLessEqual(len(value), size)
            unquote(value, errors="strict")
        self.assertEqual(read(chunks), {"t": text})

    def test_the_good_cases_hold_the_session_and_the_bad_ones_none(self) -> None:
        found = cases(SESSION, OLDER)
        self.assertGreater(len(found), 25)
        for title, case in found.items():
            self.assertLess(len(case.field), 32 * 1024, title)
            for _, value in case.cookies:
                self.assertLessEqual(len(value), CHUNK_SIZE, title)
            try:
                token = read(case.cookies)["access_token"]
            except (ValueError, TypeError, KeyError):
                token = None
            self.assertEqual(token == SESSION["access_token"], case.good, title)

    def test_a_huge_one(self) -> None:
        self.assertIn(len(field_of(huge(SESSION, 60_000))), range(60_000, 61_000))
