"""Which snapshot is meant, and how copies of databases come to their places."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from matrix.snapshots import Dated, NoSuchSnapshot, choose
from matrix.snapshots.shelf import put_in_place

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SHELF = [Dated(f"{n}abc{n:060}", NOON - timedelta(hours=n)) for n in (2, 0, 1)]


class ChooseTests(SynchronousTestCase):
    def test_the_newest(self) -> None:
        self.assertEqual(choose(SHELF), SHELF[1])

    def test_as_of_a_time(self) -> None:
        self.assertEqual(choose(SHELF, NOON - timedelta(minutes=30)), SHELF[2])
        self.assertEqual(choose(SHELF, NOON - timedelta(hours=2)), SHELF[0])

    def test_by_its_id(self) -> None:
        self.assertEqual(choose(SHELF, id="1abc"), SHELF[2])

    def test_there_is_none(self) -> None:
        for shelf, before, id, said in (
            ([], None, None, "no snapshot of this user"),
            (SHELF, NOON - timedelta(hours=3), None, "the oldest snapshot is of 2026-11-23 10:00"),
            (SHELF, None, "ffff", "of 0 snapshots"),
            (SHELF, None, "1", "at least 4"),
        ):
            with self.assertRaisesRegex(NoSuchSnapshot, said):
                choose(shelf, before, id)


class PutInPlaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.copies = self.root / "copies"

    def test_copies_take_their_places(self) -> None:
        (self.copies / "notes").mkdir(parents=True)
        (self.copies / "notes" / "a.db").write_text("the copy")
        (self.root / "notes").mkdir()
        (self.root / "notes" / "b").write_text("stays")
        put_in_place(self.copies, self.root)
        self.assertEqual((self.root / "notes" / "a.db").read_text(), "the copy")
        self.assertEqual((self.root / "notes" / "b").read_text(), "stays")
        self.assertFalse(self.copies.exists())

    def test_there_are_none(self) -> None:
        self.root.mkdir()
        put_in_place(self.copies, self.root)
        self.copies.symlink_to("/")
        put_in_place(self.copies, self.root)
        self.assertTrue(self.copies.is_symlink(), "a link is never followed")
