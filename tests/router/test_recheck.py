"""Recheck: sessions with open streams end when the issuer says that they have ended."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import ApiRefusal, ApiUnreachable, MemoryGate
from matrix.directory import MemoryDirectory
from matrix.metrics import Registry, series
from matrix.model import Principal
from matrix.router.recheck import AT_ONCE, INTERVAL, MARGIN, PAUSE, Recheck
from tests.router.world import ALICE, NOW, run

ISSUER = "https://ref.supabase.co/auth/v1"
STEP = INTERVAL / 60
ENDED = ApiRefusal(403, "session_not_found")


class RecheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.gate = MemoryGate({}, self.clock.seconds)
        self.directory = MemoryDirectory(self.clock)
        self.registry = Registry()
        self.streaming: list[str] = []
        self.tokens: dict[str, str] = {}
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.recheck = Recheck(
            self.clock,
            _Live(self.streaming),
            self.gate,
            self.directory.sessions,
            self.ask,
            ISSUER,
            self.clock.seconds,
            self.registry,
        )
        self.recheck.start()

    async def ask(self, token: str) -> None:
        session = self.tokens[token]
        self.asked.append(session)
        answer = self.answers.get(session)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            await answer

    def stream(self, session: str, life: float = 86400.0, issuer: str = ISSUER) -> None:
        """A session opens a stream."""
        token = _token({"iss": issuer, "session_id": session})
        self.tokens[token] = session
        self.gate.accept(token.encode(), Principal(ALICE, session, NOW + life))
        run(self.gate.verify(token.encode()))
        self.streaming.append(session)

    def let_pass(self, seconds: float) -> None:
        self.clock.pump([STEP / 5] * round(seconds * 5 / STEP))

    def revoked(self) -> set[str]:
        [found] = run(self.directory.sessions.revoked())
        return set(found)

    def count(self, outcome: str) -> float:
        return self.registry.counter(series.SESSION_CHECKS, outcome).value

    def test_each_session_is_asked_about_once_in_the_interval(self) -> None:
        for session in "abc":
            self.stream(session)
        self.let_pass(INTERVAL + 2 * STEP)
        self.assertEqual(sorted(set(self.asked)), ["a", "b", "c"])
        self.asked.clear()
        self.let_pass(INTERVAL)
        self.assertEqual(sorted(self.asked), ["a", "b", "c"])
        self.assertEqual(self.revoked(), set())

    def test_one_that_ended_is_revoked(self) -> None:
        self.stream("a")
        self.stream("b")
        self.answers["a"] = ENDED
        self.directory.sessions.watch(lambda change: self.streaming.remove("a"))
        self.let_pass(2 * INTERVAL)
        self.assertEqual(self.revoked(), {"a"})
        self.assertEqual(self.asked.count("a"), 1)
        self.assertEqual(self.count("ended"), 1)
        self.assertGreater(self.count("good"), 0)
        [sessions] = (run(self.directory.sessions.revoke("a", "other")),)
        self.assertEqual(sessions[0].revoke_cause, "issuer")

    def test_all_that_says_that_it_ended(self) -> None:
        for code in ("session_not_found", "user_not_found", "user_banned", "session_expired"):
            self.stream(code)
            self.answers[code] = ApiRefusal(403, code)
        self.let_pass(INTERVAL + 2 * STEP)
        self.assertEqual(self.revoked(), set(self.answers))

    def test_anything_else_keeps_it(self) -> None:
        """An issuer that is down, a wrong API key, and nonsense."""
        for session, answer in (
            ("down", ApiUnreachable("no answer")),
            ("key", ApiRefusal(401, "")),
            ("rate", ApiRefusal(429, "over_request_rate_limit", 60.0)),
            ("bad", ApiRefusal(403, "bad_jwt")),
        ):
            self.stream(session)
            self.answers[session] = answer
        self.let_pass(4 * INTERVAL)
        self.assertEqual(set(self.asked), set(self.answers))
        self.assertEqual(self.revoked(), set())

    def test_an_issuer_in_trouble_is_left_alone(self) -> None:
        for number in range(100):
            self.stream(f"{number}")
            self.answers[f"{number}"] = ApiUnreachable("no answer")
        self.let_pass(INTERVAL)
        self.assertLessEqual(len(self.asked), INTERVAL / PAUSE + 1)
        self.answers.clear()
        self.let_pass(INTERVAL + PAUSE)
        self.assertEqual(len(set(self.asked)), 100)

    def test_a_crowd_is_spread(self) -> None:
        for number in range(600):
            self.stream(f"{number}")
        most, before = 0, 0
        for _ in range(62):
            self.let_pass(STEP)
            most, before = max(most, len(self.asked) - before), len(self.asked)
        self.assertGreaterEqual(before, 600)
        self.assertLess(most, 40)  # 10 on average

    def test_few_at_once(self) -> None:
        waiting: list[Deferred[None]] = []
        for number in range(50):
            self.stream(f"{number}")
            waiting.append(Deferred())
            self.answers[f"{number}"] = waiting[-1]
        self.let_pass(2 * INTERVAL)
        self.assertEqual(len(self.asked), AT_ONCE)
        for answer in waiting:
            answer.callback(None)
        self.assertEqual(len(set(self.asked)), 50)

    def test_whose_streams_are_over_is_not_asked_about(self) -> None:
        self.stream("a")
        self.streaming.clear()
        self.let_pass(2 * INTERVAL)
        self.assertEqual(self.asked, [])

    def test_a_token_that_is_about_to_expire_is_not_shown(self) -> None:
        self.stream("a", life=MARGIN - 1)
        self.let_pass(2 * INTERVAL)
        self.assertEqual(self.asked, [])

    def test_nor_one_of_another_issuer(self) -> None:
        self.stream("a", issuer="https://other.example/auth/v1")
        self.let_pass(2 * INTERVAL)
        self.assertEqual(self.asked, [])

    def test_what_cannot_be_recorded_is_asked_again(self) -> None:
        self.stream("a")
        self.answers["a"] = ENDED
        self.directory.lose()
        self.let_pass(INTERVAL + 2 * STEP)
        self.assertGreater(self.count("unrecorded"), 0)
        self.directory.recover()
        self.let_pass(2 * STEP)
        self.assertEqual(self.revoked(), {"a"})

    def test_what_was_not_foreseen_is_no_harm_to_the_others(self) -> None:
        self.stream("a")
        self.stream("b")
        self.answers["a"] = ZeroDivisionError()
        self.let_pass(INTERVAL + 2 * STEP)
        self.assertEqual(set(self.asked), {"a", "b"})
        self.assertGreater(len(self.flushLoggedErrors(ZeroDivisionError)), 0)

    def test_stopped(self) -> None:
        self.stream("a")
        self.answers["a"] = Deferred()
        self.let_pass(INTERVAL + 2 * STEP)
        self.recheck.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


def _token(claims: dict[str, str]) -> str:
    """In the form of a JWT; nobody checks its signature here."""
    parts = {"alg": "ES256", "typ": "JWT", "kid": "k"}, claims
    encoded = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b"A" * 86]).decode()


class _Live:
    """The sessions that have streams at the moment."""

    def __init__(self, sessions: list[str]) -> None:
        self._sessions = sessions

    def __iter__(self) -> Any:
        return iter(list(self._sessions))
