"""What the command line shows is aligned, short, and harmless to a terminal."""

from datetime import UTC

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.cli._text import clean, details, duration, facts, moment, table


class TableTests(SynchronousTestCase):
    def test_columns_are_aligned(self) -> None:
        self.assertEqual(
            table(("A", "LONG"), [("1234", "x"), ("", "yy")]),
            ["A     LONG", "1234  x", "      yy"],
        )

    def test_without_rows_there_is_the_head(self) -> None:
        self.assertEqual(table(("A", "B"), []), ["A  B"])

    @given(st.lists(st.tuples(st.text(), st.text())))
    def test_each_row_is_one_printable_line(self, rows: list[tuple[str, str]]) -> None:
        lines = table(("A", "B"), rows)
        self.assertEqual(len(lines), len(rows) + 1)
        self.assertTrue("".join(lines).isprintable())

    def test_facts(self) -> None:
        self.assertEqual(facts([("a", "1"), ("long", "\x1b[2J")]), ["a     1", "long  \ufffd[2J"])
        self.assertEqual(facts([]), [])

    def test_clean_keeps_what_people_write(self) -> None:
        self.assertEqual(clean("ä 日本 €"), "ä 日本 €")


class DurationTests(SynchronousTestCase):
    def test_two_largest_units(self) -> None:
        for seconds, text in (
            (0, "0.0 s"),
            (0.42, "0.4 s"),
            (12.4, "12 s"),
            (59.9, "60 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3600, "1 h"),
            (3725, "1 h 2 min"),
            (2 * 86400 + 59, "2 d"),
            (90000, "1 d 1 h"),
        ):
            self.assertEqual(duration(seconds), text)

    @given(st.floats(0, 1e9))
    def test_always_says_something(self, seconds: float) -> None:
        self.assertRegex(duration(seconds), r"^\d+(\.\d)? (d|h|min|s)( \d+ (h|min|s))?$")


class ValueTests(SynchronousTestCase):
    def test_moment(self) -> None:
        self.assertEqual(moment("2026-11-23T13:53:39.123456+01:00", UTC), "2026-11-23 12:53:39.123")

    def test_details(self) -> None:
        self.assertEqual(details({"was": "suspended", "ms": 412}), "ms=412 was=suspended")
        self.assertEqual(details({}), "")
