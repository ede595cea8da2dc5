"""Operators say over the admin API who may come in, and see who is signed in."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.api import Api
from matrix.directory import Chore, MemoryDirectory
from matrix.errors import BadRequest, Conflict, MethodNotAllowed, NotFound, Unavailable
from matrix.model import AccessChange, UserId, UserState
from matrix.router.access_api import AccessApi
from matrix.testing.exchange import FakeExchange

ALICE = UserId("0a1b2c3d-0000-4000-8000-00000000000a")
BOB = UserId("0a1b2c3d-0000-4000-8000-00000000000b")
PHONE, LAPTOP, TABLET = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(3))
NOW = 1_795_000_000.0
"""2026-11-18T11:06:40Z"""
HOUR = 3600.0


class AccessApiTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.directory = MemoryDirectory(self.clock)
        self.api = Api(lambda request: None)
        AccessApi(self.directory, self.clock.seconds).join(self.api)
        self.run_now(self.directory.admit(ALICE, "alice@example.org"))
        self.changes: list[AccessChange | None] = []
        self.directory.sessions.watch(self.changes.append)

    def run_now(self, coroutine: object) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))  # type: ignore[arg-type]

    def ask(self, target: str, method: str = "POST") -> FakeExchange:
        return FakeExchange.of(method, f"/admin/v1/{target}", {}).handle(self.api)

    def done(self, target: str, method: str = "POST") -> Any:
        exchange = self.ask(target, method)
        self.assertIsNone(exchange.error)
        self.assertEqual(exchange.status, 200)
        return exchange.json

    def refusal(self, target: str, kind: type[Exception], method: str = "POST") -> Any:
        error = self.ask(target, method).error
        assert isinstance(error, kind), repr(error)
        return error

    def state(self) -> UserState:
        return UserState(self.run_now(self.directory.user(ALICE)).state)

    def events(self) -> list[tuple[str, str, object]]:
        found = self.run_now(self.directory.events(ALICE))
        return [(event.kind, event.cause, event.detail) for event in found]

    def sign_in(self, session_id: str, life: float, user_id: UserId = ALICE) -> None:
        expires_at = self.clock.seconds() + life
        self.run_now(self.directory.sessions.note({session_id: (user_id, expires_at)}))


class StateTests(AccessApiTestCase):
    def test_each_state_is_set_told_and_recorded(self) -> None:
        known = {"user": ALICE, "email": "alice@example.org"}
        for verb, state, was in (
            ("block", "blocked", "active"),
            ("unblock", "active", "blocked"),
            ("delete", "deleted", "active"),
            ("unblock", "active", "deleted"),
        ):
            answer = self.done(f"users/alice/{verb}")
            self.assertEqual(answer, {**known, "state": state, "was": was})
            self.assertEqual(self.state(), state)
            self.assertEqual(self.changes[-1], AccessChange(ALICE, UserState(state)))
            self.assertEqual(self.events()[0], (verb, "operator", {"was": was}))

    def test_once_more_is_no_change(self) -> None:
        self.done("users/alice/block")
        answer = self.done("users/alice/block")
        self.assertEqual((answer["state"], answer["was"]), ("blocked", "blocked"))
        self.assertEqual(len(self.changes), 1)
        self.assertEqual(len(self.events()), 1)

    def test_who_is_deleted_is_not_blocked_by_the_way(self) -> None:
        self.done("users/alice/delete")
        error = self.refusal("users/alice/block", Conflict)
        self.assertIn("alice@example.org is deleted", error.detail)
        self.assertIn("unblock", error.detail)
        self.assertEqual(self.state(), UserState.DELETED)

    def test_nobody_of_that_name(self) -> None:
        for target in ("users/bob/block", f"users/{BOB}/delete", "users/bob/sessions/revoke"):
            error = self.refusal(target, NotFound)
            self.assertEqual(error.reason, "user")
        self.refusal("users/bob/sessions", NotFound, "GET")

    def test_only_by_a_post(self) -> None:
        for target in ("users/alice/block", f"sessions/{PHONE}/revoke"):
            self.refusal(target, MethodNotAllowed, "GET")
        self.assertEqual(self.changes, [])


class SessionsTests(AccessApiTestCase):
    def test_who_is_signed_in(self) -> None:
        self.assertEqual(self.done("users/alice/sessions", "GET")["sessions"], [])
        self.sign_in(PHONE, HOUR)
        self.sign_in(LAPTOP, 2 * HOUR)
        self.sign_in(TABLET, HOUR, BOB)
        self.clock.advance(HOUR)
        self.run_now(self.directory.sessions.revoke(LAPTOP, "sign-out"))
        answer = self.done("users/alice/sessions", "GET")
        laptop = {
            "id": LAPTOP,
            "user": ALICE,
            "seen_at": "2026-11-18T11:06:40+00:00",
            "token_expires_at": "2026-11-18T13:06:40+00:00",
            "state": "revoked",
            "revoked_at": "2026-11-18T12:06:40+00:00",
            "revoke_cause": "sign-out",
        }
        phone = {
            **laptop,
            "id": PHONE,
            "token_expires_at": "2026-11-18T12:06:40+00:00",
            "state": "expired",
            "revoked_at": None,
            "revoke_cause": None,
        }
        self.assertEqual(
            answer,
            {
                "user": ALICE,
                "email": "alice@example.org",
                "state": "active",
                "sessions": [laptop, phone],
            },
        )
        self.sign_in(PHONE, HOUR / 2)
        answer = self.done("users/alice/sessions?limit=1", "GET")
        self.assertEqual([one["id"] for one in answer["sessions"]], [LAPTOP])
        answer = self.done("users/alice/sessions", "GET")
        self.assertEqual([one["state"] for one in answer["sessions"]], ["revoked", "live"])

    def test_limits(self) -> None:
        for limit in ("0", "1001", "x", "-1", ""):
            self.refusal(f"users/alice/sessions?limit={limit}", BadRequest, "GET")

    def test_one_is_revoked(self) -> None:
        self.sign_in(PHONE, HOUR)
        answer = self.done(f"sessions/{PHONE.upper()}/revoke")
        self.assertEqual((answer["id"], answer["user"]), (PHONE, ALICE))
        self.assertEqual((answer["state"], answer["revoke_cause"]), ("revoked", "operator"))
        self.assertEqual(self.changes, [AccessChange(session_id=PHONE)])
        self.assertEqual(self.events(), [("revoke", "operator", {"session": PHONE})])

    def test_one_that_was_never_seen_is_revoked(self) -> None:
        answer = self.done(f"sessions/{PHONE}/revoke")
        self.assertEqual((answer["id"], answer["user"]), (PHONE, None))
        self.assertEqual(self.run_now(self.directory.sessions.revoked()), {PHONE})

    def test_an_operators_revocation_outlives_the_tokens(self) -> None:
        # The session may go on at its issuer: new tokens of it must be refused, too.
        self.sign_in(PHONE, HOUR)
        self.done(f"sessions/{PHONE}/revoke")
        self.clock.advance(30 * 86400)
        self.run_now(self.directory.sessions.purge())
        self.assertEqual(self.run_now(self.directory.sessions.revoked()), {PHONE})

    def test_all_of_a_user(self) -> None:
        for session_id in (PHONE, LAPTOP):
            self.sign_in(session_id, HOUR)
        self.sign_in(TABLET, HOUR, BOB)
        answer = self.done("users/alice/sessions/revoke")
        self.assertEqual(answer["revoked"], [PHONE, LAPTOP])
        self.assertEqual((answer["user"], answer["state"]), (ALICE, "active"))
        self.assertEqual(self.events(), [("revoke", "operator", {"sessions": 2})])
        self.assertEqual(self.done("users/alice/sessions/revoke")["revoked"], [])

    def test_what_is_no_session_id(self) -> None:
        for text in ("phone", "1", f"{PHONE}0"):
            error = self.refusal(f"sessions/{text}/revoke", BadRequest)
            self.assertEqual(error.reason, "session")
            self.assertIn(repr(text), error.detail)
        self.assertEqual(self.run_now(self.directory.sessions.revoked()), set())


class OutageTests(AccessApiTestCase):
    def test_says_so_and_changes_nothing(self) -> None:
        self.directory.lose()
        for method, target in (
            ("POST", "users/alice/block"),
            ("GET", "users/alice/sessions"),
            ("POST", "users/alice/sessions/revoke"),
            ("POST", f"sessions/{PHONE}/revoke"),
        ):
            error = self.refusal(target, Unavailable, method)
            self.assertEqual(error.reason, "directory")
        self.directory.recover()
        self.assertEqual(self.state(), UserState.ACTIVE)


class ErasingTests(AccessApiTestCase):
    def test_who_is_being_erased_is_not_let_in_again(self) -> None:
        self.done("users/alice/delete")
        self.run_now(self.directory.upkeep.claim(Chore.ERASE, "keeper", 60.0))
        for verb in ("unblock", "block"):
            self.refusal(f"users/alice/{verb}", Conflict)
        self.assertEqual(self.refusal("users/alice/unblock", Conflict).reason, "erased")
        self.assertIs(self.state(), UserState.DELETED)
