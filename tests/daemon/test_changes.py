"""Merged changes leave a reader with the same picture as all of them would have."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.changes import Change, Gathering, Kind
from matrix.daemon.paths import Parts

paths = st.sampled_from([(b"a",), (b"b",), (b"c",), (b"d", b"e")])
plain = st.builds(
    Change, st.sampled_from([Kind.CREATED, Kind.MODIFIED, Kind.DELETED]), paths, st.just(1.0)
)
moves = st.builds(lambda to, source: Change(Kind.MOVED, to, 1.0, source), paths, paths)
histories = st.lists(st.one_of(plain, plain, moves), max_size=40)


def change(kind: Kind, *path: str) -> Change:
    return Change(kind, tuple(name.encode() for name in path), 1.0)


def picture(start: Iterable[Parts], changes: Iterable[Change]) -> set[Parts]:
    """What a reader who believes the changes thinks is there."""
    there = set(start)
    for each in changes:
        if each.kind is Kind.DELETED:
            there.discard(each.path)
        else:
            if each.source is not None:
                there.discard(each.source)
            there.add(each.path)
    return there


class GatheringPropertyTests(SynchronousTestCase):
    @given(st.sets(paths), histories)
    def test_same_picture_with_no_more_changes(
        self, start: set[Parts], history: list[Change]
    ) -> None:
        gathering = Gathering()
        for each in history:
            gathering.add(each)
        merged = gathering.take()
        self.assertEqual(picture(start, merged), picture(start, history))
        self.assertLessEqual(len(merged), len(history))
        self.assertFalse(gathering)

    @given(st.lists(plain, max_size=60))
    def test_one_change_for_each_path(self, history: list[Change]) -> None:
        gathering = Gathering()
        for each in history:
            gathering.add(each)
        told = [each.path for each in gathering.take()]
        self.assertEqual(len(told), len(set(told)))

    @given(
        st.lists(
            st.builds(Change, st.just(Kind.CREATED), st.binary().map(lambda b: (b,)), st.just(1.0)),
            max_size=60,
        )
    )
    def test_never_holds_more_than_its_limit(self, history: list[Change]) -> None:
        gathering = Gathering(limit=5)
        for each in history:
            gathering.add(each)
        self.assertLessEqual(len(gathering.take()), 10)


class GatheringTests(SynchronousTestCase):
    def merged(self, *changes: Change) -> list[tuple[Kind, Parts]]:
        gathering = Gathering(limit=4)
        for each in changes:
            gathering.add(each)
        return [(each.kind, each.path) for each in gathering.take()]

    def test_nothing_is_nothing(self) -> None:
        gathering = Gathering()
        self.assertFalse(gathering)
        self.assertEqual(gathering.take(), [])

    def test_file_being_written_is_told_once(self) -> None:
        writing = [change(Kind.CREATED, "a")] + [change(Kind.MODIFIED, "a")] * 100
        self.assertEqual(self.merged(*writing), [(Kind.CREATED, (b"a",))])

    def test_file_replaced_is_modified(self) -> None:
        history = [change(Kind.DELETED, "a"), change(Kind.CREATED, "a")]
        self.assertEqual(self.merged(*history), [(Kind.MODIFIED, (b"a",))])

    def test_short_life_ends_in_deleted(self) -> None:
        # It may have taken the place of another file by being renamed onto it.
        history = [change(Kind.CREATED, "a"), change(Kind.DELETED, "a")]
        self.assertEqual(self.merged(*history), [(Kind.DELETED, (b"a",))])

    def test_folder_goes_after_what_it_contained(self) -> None:
        history = [
            change(Kind.MODIFIED, "d"),
            change(Kind.DELETED, "d", "x"),
            change(Kind.DELETED, "d"),
        ]
        self.assertEqual(
            self.merged(*history), [(Kind.DELETED, (b"d", b"x")), (Kind.DELETED, (b"d",))]
        )

    def test_too_many_are_told_as_one(self) -> None:
        history = [change(Kind.CREATED, str(number)) for number in range(9)]
        self.assertEqual(self.merged(*history), [(Kind.RESET, ())])

    def test_many_moves_are_told_as_one(self) -> None:
        history = [Change(Kind.MOVED, (b"b",), 1.0, (b"a",))] * 9
        self.assertEqual(self.merged(*history), [(Kind.RESET, ())])

    def test_reset_stands_for_everything(self) -> None:
        history = [change(Kind.CREATED, "a"), change(Kind.RESET), change(Kind.CREATED, "b")]
        self.assertEqual(self.merged(*history), [(Kind.RESET, ())])
