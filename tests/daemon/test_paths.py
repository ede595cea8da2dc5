"""The path rule: what it lets through names exactly one place inside the workspace."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.paths import (
    DEPTH_LIMIT,
    NAME_LIMIT,
    Parts,
    href,
    parse_text,
    parse_url,
    text_of,
)
from matrix.errors import BadRequest

names = st.binary(min_size=1, max_size=40).filter(
    lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name
)
places = st.lists(names, max_size=6).map(tuple)
hostile = st.text(st.sampled_from("./%20Ff5Cc\\a\0~ü"), max_size=30)


def is_safe(parts: Parts) -> bool:
    return len(parts) <= DEPTH_LIMIT and all(
        0 < len(name) <= NAME_LIMIT
        and name not in (b".", b"..")
        and b"/" not in name
        and b"\0" not in name
        for name in parts
    )


class PathPropertyTests(SynchronousTestCase):
    @given(places)
    def test_url_of_a_place_leads_back_to_it(self, parts: Parts) -> None:
        self.assertEqual(parse_url(href(parts)), parts)

    @given(places)
    def test_url_is_plain_ascii_without_specials(self, parts: Parts) -> None:
        url = href(parts)
        self.assertTrue(url.isascii())
        self.assertFalse(set(url) & set(' "#<>?[]\\^`{|}\r\n'))

    @given(hostile.map(lambda text: text.replace("ü", "%C3%BC")))
    def test_no_url_leaves_the_workspace(self, text: str) -> None:
        try:
            parts = parse_url(text)
        except BadRequest as error:
            self.assertEqual(error.reason, "path")
        else:
            self.assertTrue(is_safe(parts))

    @given(st.one_of(hostile, st.text(max_size=300)))
    def test_no_text_leaves_the_workspace(self, text: str) -> None:
        try:
            parts = parse_text(text)
        except BadRequest as error:
            self.assertEqual(error.reason, "path")
        else:
            self.assertTrue(is_safe(parts))
            self.assertEqual(text_of(parts), text)


class PathTests(SynchronousTestCase):
    def refusal(self, text: str) -> str:
        return str(self.assertRaises(BadRequest, parse_url, text))

    def test_empty_is_the_workspace(self) -> None:
        self.assertEqual(parse_url(""), ())
        self.assertEqual(parse_text(""), ())

    def test_names_are_decoded(self) -> None:
        self.assertEqual(parse_url("a%20b/%C3%BC/c%25"), (b"a b", "ü".encode(), b"c%"))

    def test_name_need_not_be_utf8(self) -> None:
        self.assertEqual(parse_url("%FF"), (b"\xff",))
        self.assertEqual(text_of((b"\xff",)), "\N{REPLACEMENT CHARACTER}")

    def test_names_that_only_look_special_are_fine(self) -> None:
        for name in ("...", "..a", "a..", ".hidden", "~", "-rf", "a\\b", "con:"):
            self.assertEqual(parse_text(name), (name.encode(),))

    def test_says_what_is_wrong(self) -> None:
        wrong = {
            "..": "'..'",
            "a/../b": "'..'",
            "%2e%2E/x": "'..'",
            ".": "'.'",
            "a/./b": "'.'",
            "/etc": "empty name",
            "a//b": "empty name",
            "a/": "empty name",
            "a%2Fb": "encoded slash",
            "a%2fb": "encoded slash",
            "a%00b": "NUL",
            "a%": "two hexadecimal digits",
            "a%zz": "two hexadecimal digits",
            "x" * 256: "256 bytes",
            "a/" * DEPTH_LIMIT + "a": f"deeper than {DEPTH_LIMIT}",
        }
        for text, what in wrong.items():
            self.assertIn(what, self.refusal(text), text)

    def test_text_that_is_no_unicode_is_refused(self) -> None:
        self.assertRaises(BadRequest, parse_text, "\udcff")

    def test_longest_name_and_deepest_path_pass(self) -> None:
        self.assertEqual(parse_url("x" * 255), (b"x" * 255,))
        self.assertEqual(len(parse_url("/".join("a" * DEPTH_LIMIT))), DEPTH_LIMIT)
