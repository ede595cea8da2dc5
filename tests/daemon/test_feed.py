"""Those who follow get each event once; those who were away catch up or look again."""

import json

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.changes import Change, Kind
from matrix.daemon.feed import Event, Feed


class Reader:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.beats = 0
        self.ended = False

    def send(self, event: Event) -> None:
        self.events.append(event)

    def heartbeat(self) -> None:
        self.beats += 1

    def end(self) -> None:
        self.ended = True

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]


def created(name: str) -> Change:
    return Change(Kind.CREATED, (name.encode(),), 0.5)


class FeedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.feed = Feed("run", remembered=3)
        self.reader = Reader()

    def publish(self, *names: str) -> None:
        self.feed.publish([created(name) for name in names])

    def test_event_carries_the_change(self) -> None:
        self.feed.follow(self.reader)
        moved = Change(Kind.MOVED, (b"d", b"new"), 86400.25, (b"old",))
        self.feed.publish([created("ü"), moved])
        first, second = self.reader.events
        self.assertEqual((first.id, first.name), ("run-1", "file"))
        self.assertEqual(
            json.loads(first.data),
            {"kind": "created", "path": "ü", "at": "1970-01-01T00:00:00.500Z", "id": "run-1"},
        )
        self.assertEqual(
            json.loads(second.data),
            {
                "kind": "moved",
                "path": "d/new",
                "from": "old",
                "at": "1970-01-02T00:00:00.250Z",
                "id": "run-2",
            },
        )

    def test_new_reader_sees_nothing_of_the_past(self) -> None:
        self.publish("a")
        self.feed.follow(self.reader)
        self.publish("b")
        self.assertEqual(self.reader.ids, ["run-2"])

    def test_returning_reader_catches_up(self) -> None:
        self.publish("a", "b", "c")
        self.feed.follow(self.reader, "run-1")
        self.publish("d")
        self.assertEqual(self.reader.ids, ["run-2", "run-3", "run-4"])

    def test_reader_who_missed_nothing(self) -> None:
        self.feed.follow(self.reader, self.feed.last_id)
        self.assertEqual(self.reader.events, [])

    def test_everything_remembered_is_enough(self) -> None:
        self.publish("a", "b", "c", "d")
        self.feed.follow(self.reader, "run-1")
        self.assertEqual(self.reader.ids, ["run-2", "run-3", "run-4"])

    def test_away_for_too_long_means_look_again(self) -> None:
        self.publish("a", "b", "c", "d")
        self.feed.follow(self.reader, "run-0")
        self.assertEqual([(e.name, e.id) for e in self.reader.events], [("reset", "run-4")])

    def test_id_of_another_run_or_made_up_means_look_again(self) -> None:
        self.publish("a")
        for id in ("other-1", "run-7", "run-", "run--1", "run-x", "", "run-" + "9" * 5000, "ü"):
            reader = Reader()
            self.feed.follow(reader, id)
            self.assertEqual([event.name for event in reader.events], ["reset"], id)

    def test_reader_who_left_gets_nothing(self) -> None:
        self.feed.follow(self.reader)
        self.feed.leave(self.reader)
        self.feed.leave(self.reader)
        self.publish("a")
        self.feed.heartbeat()
        self.assertEqual((self.reader.events, self.reader.beats), ([], 0))

    def test_reader_who_leaves_while_being_told(self) -> None:
        other = Reader()
        self.feed.follow(self.reader)
        self.feed.follow(other)
        self.reader.send = lambda event: self.feed.leave(self.reader)  # type: ignore[method-assign]
        self.publish("a", "b")
        self.assertEqual(other.ids, ["run-1", "run-2"])

    def test_heartbeat_and_end_reach_all(self) -> None:
        self.feed.follow(self.reader)
        self.feed.heartbeat()
        self.feed.end()
        self.feed.heartbeat()
        self.assertEqual((self.reader.beats, self.reader.ended), (1, True))

    def test_two_runs_have_different_ids(self) -> None:
        self.assertNotEqual(Feed().last_id, Feed().last_id)
