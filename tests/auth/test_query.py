"""Credentials in a query: found, and taken out with nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import UNDERSCORE
from matrix.auth._query import TICKET, TOKEN, parameter, without
from matrix.errors import BadRequest

BOTH = (TICKET, TOKEN)
parts = st.text("abc=_%2f;?/.", max_size=10).map(str.encode)


class TableTests(SynchronousTestCase):
    """Row by row."""

    def test_where_a_ticket_is(self) -> None:
        for target, value in (
            (b"/?matrix_ticket=t", b"t"),
            (b"/a/b?x=1&matrix_ticket=t&y=2", b"t"),
            (b"/?matrix_ticket=", b""),
            (b"/?matrix_ticket=a%2Eb", b"a.b"),
            (b"/?matrix_ticket", None),
            (b"/?Matrix_ticket=t", None),
            (b"/?xmatrix_ticket=t", None),
            (b"/?x=1;matrix_ticket=t", None),
            (b"/matrix_ticket=t", None),
            (b"/", None),
            (b"*", None),
        ):
            self.assertEqual(parameter(target, TICKET), value, target)

    def test_two(self) -> None:
        with self.assertRaises(BadRequest) as caught:
            parameter(b"/?access_token=a&x=y&access_token=a", TOKEN)
        self.assertEqual(caught.exception.reason, "two-query-tokens")
        self.assertIn("access_token", caught.exception.detail)

    def test_what_a_machine_is_asked_for(self) -> None:
        for target, rest in (
            (b"/?matrix_ticket=t", b"/"),
            (b"/a?matrix_ticket=t&x=1", b"/a?x=1"),
            (b"/a?x=1&access_token=t", b"/a?x=1"),
            (b"/a?x=%20&access_token=t&&y=?", b"/a?x=%20&&y=?"),
            (b"/a?access_token=t&matrix_ticket=u", b"/a"),
            (b"/a?token=t", b"/a?token=t"),
            (b"/a?", b"/a?"),
            (b"/access_token=1/x?y", b"/access_token=1/x?y"),
            (b"https://door/a?access_token=t", b"https://door/a"),
        ):
            self.assertEqual(without(target, BOTH), rest, target)
        self.assertEqual(without(b"/?access_token=t", (TICKET,)), b"/?access_token=t")

    def test_both_names_have_the_byte_that_is_looked_for(self) -> None:
        for name in BOTH:
            self.assertIn(UNDERSCORE, name)


class PropertyTests(SynchronousTestCase):
    """What holds for any query."""

    @given(st.lists(parts, max_size=6), st.lists(parts, max_size=6), st.sampled_from(BOTH), parts)
    def test_every_other_byte_is_kept(
        self, before: list[bytes], after: list[bytes], name: bytes, value: bytes
    ) -> None:
        others = [one for one in (*before, *after) if not one.startswith((b"matrix_t", b"access_"))]
        place = min(len(before), len(others))
        query = [*others[:place], name + b"=" + value, *others[place:]]
        target = b"/p?" + b"&".join(query)
        self.assertIsNotNone(parameter(target, name))
        self.assertEqual(without(target, BOTH), b"/p?" + b"&".join(others) if others else b"/p")

    @given(st.binary(max_size=80))
    def test_what_is_taken_out_is_found_no_more(self, noise: bytes) -> None:
        rest = without(b"/?" + noise, BOTH)
        for name in BOTH:
            self.assertIsNone(parameter(rest, name))
        self.assertEqual(without(rest, BOTH), rest)
