"""What daemons say of snapshots is understood, and nothing that they say does harm."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.router.snapshots.report import (
    LINE_LIMIT,
    REASON_LIMIT,
    Done,
    Failed,
    Lines,
    Nonsense,
    Progress,
    Unchanged,
    outcome_of,
    read_report,
    report_of,
)

NAME = "0123456789abcdef" * 4
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
known = st.sampled_from(
    ("kind", "stage", "files_done", "bytes_done", "bytes_total", "snapshot", "bytes_added")
) | st.sampled_from(("partial", "reason", "retry"))
kinds = st.sampled_from(["progress", "done", "unchanged", "failed"])


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode()


class ReportTests(SynchronousTestCase):
    def test_progress(self) -> None:
        said = line(kind="progress", stage="backup", files_done=3, bytes_done=10, bytes_total=99)
        self.assertEqual(read_report(said), Progress("backup", 3, 10, 99))
        self.assertEqual(read_report(line(kind="progress")), Progress(""))

    def test_outcomes(self) -> None:
        done = line(kind="done", snapshot=NAME, bytes_added=5, bytes_total=7.0, seconds=1.5)
        self.assertEqual(read_report(done), Done(NAME, 5, 7))
        self.assertEqual(
            read_report(line(kind="done", snapshot=NAME, partial=True)), Done(NAME, partial=True)
        )
        self.assertEqual(read_report(line(kind="unchanged", seconds=0.1)), Unchanged())
        last = {"kind": "done", "snapshot": NAME, "bytes_total": 7}
        self.assertEqual(
            read_report(line(kind="unchanged", last=last)), Unchanged(Done(NAME, 0, 7))
        )
        for nothing in (None, {}, {"kind": "unchanged"}, {"kind": "done"}):
            self.assertEqual(read_report(line(kind="unchanged", last=nothing)), Unchanged())
        endless: dict[str, object] = {}
        for _ in range(900):
            endless = {"kind": "unchanged", "last": endless}
        self.assertEqual(report_of(endless), Unchanged())
        failed = line(kind="failed", reason="no space left", retry=False)
        self.assertEqual(read_report(failed), Failed("no space left", retry=False))

    def test_nonsense(self) -> None:
        for said in (b"", b"{", b"[]", b"1", line(kind="joke"), line(), b"[" * 100_000):
            with self.assertRaises(Nonsense):
                read_report(said)
        for name in (None, "", NAME[:8], NAME.upper(), NAME + "\n", "../" + NAME[3:], 7):
            with self.assertRaises(Nonsense):
                read_report(line(kind="done", snapshot=name))

    def test_a_reason_is_one_short_printable_line(self) -> None:
        report = read_report(line(kind="failed", reason="a\nb\x1b[31m\tc" + "d" * 5000))
        assert isinstance(report, Failed)
        self.assertTrue(report.reason.startswith("a b [31m c"))
        self.assertLessEqual(len(report.reason), REASON_LIMIT)
        self.assertTrue(report.reason.isprintable())

    @given(st.dictionaries(known, anything), kinds)
    def test_whatever_is_said_is_bounded_or_refused(
        self, fields: dict[str, object], kind: str
    ) -> None:
        try:
            report = read_report(json.dumps({**fields, "kind": kind}).encode())
        except Nonsense:
            return
        for value in (getattr(report, name) for name in report.__slots__):
            if isinstance(report, Unchanged):
                self.assertIsInstance(value, Done | None)
            elif isinstance(value, str):
                self.assertTrue(value.isprintable())
                self.assertLessEqual(len(value), REASON_LIMIT)
            elif not isinstance(value, bool):
                self.assertGreaterEqual(value, 0)
                self.assertLessEqual(value, 2**53)

    def test_what_a_daemon_remembers(self) -> None:
        self.assertEqual(outcome_of({"kind": "unchanged"}), Unchanged())
        for nothing in (None, "done", {"kind": "progress"}, {"kind": "joke"}, {}):
            self.assertIsNone(outcome_of(nothing))


class LinesTests(SynchronousTestCase):
    @given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
    def test_pieces_make_the_same_lines_however_they_come(
        self, data: bytes, cuts: list[int]
    ) -> None:
        lines, found, start = Lines(), [], 0
        for cut in sorted(cuts):
            found += lines.feed(data[start:cut])
            start = max(start, cut)
        found += lines.feed(data[start:] + b"\n")
        self.assertEqual(found, [one for one in data.split(b"\n") if one.strip()])

    def test_a_line_without_an_end(self) -> None:
        lines = Lines()
        with self.assertRaises(Nonsense):
            for _ in range(3):
                lines.feed(b"x" * LINE_LIMIT)
