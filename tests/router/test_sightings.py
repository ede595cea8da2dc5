"""Sightings: each good token is told to the directory, in batches, through outages."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import MemoryDirectory
from matrix.model import Principal, UserId
from matrix.router import sightings
from matrix.router.sightings import DELAY, RETRY, Sightings
from tests.router.world import ALICE, NOW, run


class SightingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.directory = MemoryDirectory(self.clock)
        self.sightings = Sightings(self.clock, self.directory.sessions)

    def see(self, session: str, life: float = 100.0, user_id: UserId = ALICE) -> None:
        self.sightings.seen(Principal(user_id, session, NOW + life))

    def known(self, *sessions: str) -> dict[str, float]:
        """For how long the tokens of these are good, as the directory has it."""
        [newest] = run(self.directory.sessions.newest(sessions))
        return {session: until - NOW for session, until in newest.items()}

    def test_one_statement_for_all_of_a_second(self) -> None:
        self.see("a")
        self.see("b", 200)
        self.see("a", 300)
        self.see("a", 250)
        self.assertEqual(self.directory.calls, 0)
        self.clock.advance(DELAY)
        self.assertEqual(self.directory.calls, 1)
        self.assertEqual(self.known("a", "b"), {"a": 300, "b": 200})
        self.assertEqual(len(self.sightings), 0)

    def test_further_ones(self) -> None:
        self.see("a")
        self.clock.advance(DELAY)
        self.see("a", 200)
        self.clock.advance(DELAY)
        self.assertEqual(self.known("a"), {"a": 200})

    def test_kept_while_the_directory_cannot_be_reached(self) -> None:
        self.see("a")
        self.directory.lose()
        self.clock.advance(DELAY)
        self.see("b")
        self.clock.advance(RETRY)
        self.assertEqual(len(self.sightings), 2)
        self.directory.recover()
        self.clock.advance(RETRY)
        self.assertEqual(self.known("a", "b"), {"a": 100, "b": 100})

    def test_seen_while_others_are_told(self) -> None:
        sent: list[Any] = []
        done: Deferred[None] = Deferred()

        async def note(seen: Any) -> None:
            sent.append(seen)
            if len(sent) == 1:
                await done

        self.patch(self.directory.sessions, "note", note)
        self.see("a")
        self.clock.advance(DELAY)
        self.see("b")
        self.clock.advance(10 * DELAY)
        self.assertEqual(len(sent), 1)
        done.callback(None)
        self.clock.advance(DELAY)
        self.assertEqual([list(one) for one in sent], [["a"], ["b"]])

    def test_bounded(self) -> None:
        self.patch(sightings, "MOST", 3)
        for session in "abcde":
            self.see(session)
        self.clock.advance(DELAY)
        self.assertEqual(set(self.known(*"abcde")), {"c", "d", "e"})

    def test_what_is_not_taken_is_no_harm_to_the_next(self) -> None:
        async def note(seen: Any) -> None:
            raise ZeroDivisionError

        patch = self.patch(self.directory.sessions, "note", note)
        self.see("a")
        self.clock.advance(DELAY)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        patch.restore()
        self.see("b")
        self.clock.advance(DELAY)
        self.assertEqual(set(self.known("a", "b")), {"b"})

    def test_the_rest_is_told_at_the_end(self) -> None:
        self.see("a")
        self.assertEqual(run(self.sightings.stop()), [None])
        self.assertEqual(set(self.known("a")), {"a"})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_end_without_the_directory(self) -> None:
        self.see("a")
        self.directory.lose()
        self.assertEqual(run(self.sightings.stop()), [None])
        self.assertEqual(self.clock.getDelayedCalls(), [])
