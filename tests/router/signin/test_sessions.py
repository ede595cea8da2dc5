"""Sessions of our own: resolved, refreshed by one of many, carried through outages, ended."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import ApiRefusal, ApiUnreachable, Handles, Latchkey, Reason, refusal
from matrix.metrics import series
from matrix.router.signin import sessions
from matrix.router.signin.cookie import LIFE as COOKIE_LIFE
from matrix.router.signin.refresher import LEASE, PATIENCE, RETRY
from matrix.router.signin.sessions import BrowserSessions
from matrix.router.signin.wallet import AHEAD
from tests.router.signin.hall import LIFE, MASTER, Hall
from tests.router.world import ALICE, run


class SessionCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.hall = Hall()
        self.cookie = self.hall.sign_in()

    @property
    def handle(self) -> bytes:
        return self.cookie.partition("=")[2].encode()

    def session(self, hall: Hall | None = None) -> str:
        return str(json.loads((hall or self.hall).who(self.cookie).body)["session"])

    def status(self, hall: Hall | None = None) -> int:
        return (hall or self.hall).who(self.cookie).status

    def refreshes(self, outcome: str) -> float:
        return self.hall.registry.counter(series.SESSION_REFRESHES, outcome).value

    def let_pass(self, seconds: float) -> None:
        self.hall.clock.advance(seconds)
        self.hall.turn()


class ResolveTests(SessionCase):
    def test_a_warm_request_asks_nobody(self) -> None:
        self.status()
        calls, asked = self.hall.store.calls, list(self.hall.issuer.asked)
        for _ in range(10):
            self.assertEqual(self.status(), 200)
        self.assertEqual(self.hall.issuer.asked, asked)
        self.assertEqual(self.hall.store.calls, calls)

    def test_another_router_knows_it_too(self) -> None:
        other = Hall(within=self.hall, owner="router:2")
        self.hall.issuer.accept[-1] = other.gate.accept
        for token, principal in self.hall.gate._tokens.items():
            other.gate.accept(token, principal)
        self.assertEqual(self.status(other), 200)
        self.assertEqual(self.session(other), self.session())

    def test_what_is_no_handle_is_refused_and_taken_back(self) -> None:
        stranger = Handles("n" * 40).write(Latchkey.new()).decode()
        unknown = Handles(MASTER).write(Latchkey.new()).decode()
        for value in (stranger, unknown, "x", "alice-token", "A" * 102, self.cookie[:-1]):
            client = self.hall.ask("/", token=None, Cookie=f"__Host-matrix={value}")
            self.assertEqual(client.status, 401, value)
            self.assertEqual(json.loads(client.body)["reason"], "signed-out")
            self.assertTrue(client.headers["set-cookie"].startswith("__Host-matrix=; "))

    def test_a_handle_is_no_token_elsewhere(self) -> None:
        self.hall.clock.advance(LIFE - AHEAD + 1)  # it is remembered no more
        client = self.hall.ask("/", token=self.handle.decode())
        self.assertEqual(client.status, 401)

    def test_a_session_lasts_so_long_and_no_longer(self) -> None:
        days = round(COOKIE_LIFE / 86400)
        for _ in range(days - 1):
            self.let_pass(86400.0)
            self.assertEqual(self.status(), 200)
        self.let_pass(86400.0)
        self.assertEqual(self.status(), 401)

    def test_pages_of_others_cannot_use_it(self) -> None:
        for method in ("POST", "DELETE"):
            client = self.hall.ask(
                "/", method=method, token=None, Cookie=self.cookie, Content_Length="0",
                Origin="https://evil.example",
            )  # fmt: skip
            self.assertEqual(client.status, 403)


class RefreshTests(SessionCase):
    def test_nothing_is_refreshed_before_its_time(self) -> None:
        self.let_pass(LIFE - AHEAD - 1)
        self.assertEqual(self.status(), 200)
        self.assertEqual(self.hall.issuer.count("refresh"), 0)

    def test_it_is_refreshed_ahead_of_expiry_and_nobody_waits(self) -> None:
        before = json.loads(self.hall.who(self.cookie).body)
        self.let_pass(LIFE - AHEAD + 1)
        self.hall.issuer.held = []
        self.assertEqual(self.status(), 200, "with the old token")
        self.assertEqual(self.hall.issuer.count("refresh"), 1)
        self.hall.issuer.answer()
        self.hall.turn()
        after = json.loads(self.hall.who(self.cookie).body)
        self.assertGreater(after["expires_at"], before["expires_at"])
        self.assertEqual(after["session"], before["session"])
        self.assertEqual(self.refreshes("refreshed"), 1)

    def test_of_twenty_at_once_one_refreshes(self) -> None:
        self.let_pass(LIFE - AHEAD + 1)
        self.hall.issuer.held = []
        clients = [self.hall.who(self.cookie) for _ in range(20)]
        self.hall.issuer.answer()
        self.hall.turn()
        self.assertEqual([client.status for client in clients], [200] * 20)
        self.assertEqual(self.hall.issuer.count("refresh"), 1)

    def test_of_twenty_that_come_after_a_long_sleep_one_refreshes(self) -> None:
        self.let_pass(10 * LIFE)
        self.hall.issuer.held = []
        clients = [self.hall.who(self.cookie) for _ in range(20)]
        self.hall.turn()
        self.assertFalse(any(client.answered for client in clients), "there is no good token")
        self.hall.issuer.answer()
        self.hall.turn()
        self.assertEqual([client.status for client in clients], [200] * 20)
        self.assertEqual(self.hall.issuer.count("refresh"), 1)

    def test_who_leaves_spoils_it_for_nobody(self) -> None:
        self.let_pass(10 * LIFE)
        self.hall.issuer.held = []
        first, second = self.hall.who(self.cookie), self.hall.who(self.cookie)
        first.leave()
        self.hall.issuer.answer()
        self.hall.turn()
        self.assertEqual(second.status, 200)
        self.assertEqual(self.hall.issuer.count("refresh"), 1)

    def test_a_session_is_refreshed_again_and_again(self) -> None:
        for count in range(1, 6):
            self.let_pass(LIFE)
            self.assertEqual(self.status(), 200)
            self.hall.turn()
            self.assertEqual(self.hall.issuer.count("refresh"), count)

    def test_tokens_of_a_short_life_are_not_refreshed_all_the_time(self) -> None:
        self.hall.issuer.life = 30.0
        self.cookie = self.hall.sign_in()
        for _ in range(10):
            self.let_pass(1.0)
            self.status()
        self.assertEqual(self.hall.issuer.count("refresh"), 0)
        self.let_pass(6.0)
        self.status()
        self.assertEqual(self.hall.issuer.count("refresh"), 1)

    def test_a_token_whose_key_is_gone_is_replaced_by_one_of_the_new_key(self) -> None:
        [token] = [each for each in self.hall.gate._tokens if each.startswith(b"access-")]
        self.hall.gate.forget_user(ALICE)
        verify = self.hall.gate.verify

        async def without_its_key(given: bytes) -> Any:
            if given == token:
                raise _unknown_key()
            return await verify(given)

        self.patch(self.hall.gate, "verify", without_its_key)
        self.assertEqual(self.status(), 200)
        self.assertEqual(self.hall.issuer.count("refresh"), 1)


class RouterTests(SessionCase):
    """Two routers on one directory."""

    def setUp(self) -> None:
        super().setUp()
        self.other = Hall(within=self.hall, owner="router:2")
        for token, principal in self.hall.gate._tokens.items():
            self.other.gate.accept(token, principal)

    def test_of_two_routers_one_refreshes(self) -> None:
        self.let_pass(10 * LIFE)
        self.hall.issuer.held = []
        clients = [hall.who(self.cookie) for hall in (self.hall, self.other) for _ in range(10)]
        self.hall.let_pass(1.0)
        self.assertEqual(self.hall.issuer.count("refresh"), 1)
        self.hall.issuer.answer()
        self.hall.let_pass(1.0)
        self.assertEqual([client.status for client in clients], [200] * 20)
        self.assertEqual(self.hall.issuer.count("refresh"), 1)

    def test_one_that_dies_meanwhile_is_stood_in_for(self) -> None:
        self.let_pass(10 * LIFE)
        self.hall.issuer.held = []
        self.hall.who(self.cookie).leave()
        self.hall.refresher.stop()
        held, self.hall.issuer.held = self.hall.issuer.held, None
        self.assertEqual(len(held), 1)
        client = self.other.who(self.cookie)
        self.hall.let_pass(LEASE - 1.0)
        self.assertFalse(client.answered)
        self.hall.let_pass(2.0)
        self.assertEqual(client.status, 200)

    def test_one_that_dawdles_is_not_waited_for_for_ever(self) -> None:
        self.let_pass(10 * LIFE)
        self.patch(self.hall.store.sign_ins, "claim", _nobody_may)
        client = self.hall.who(self.cookie)
        self.hall.let_pass(PATIENCE + 1.0, 0.1)
        self.assertEqual(client.status, 503)
        self.assertNotIn("set-cookie", client.headers)

    def test_a_sign_out_at_one_is_one_at_the_other(self) -> None:
        self.assertEqual(self.status(self.other), 200)
        self.assertEqual(self.hall.send({}, "/-/logout", self.cookie).status, 303)
        self.hall.turn()
        self.assertEqual(self.status(self.other), 401)


class OutageTests(SessionCase):
    def test_while_the_issuer_is_down_the_old_token_does(self) -> None:
        self.hall.issuer.failure = ApiUnreachable("down")
        self.let_pass(LIFE - AHEAD + 1)
        for _ in range(5):
            self.assertEqual(self.status(), 200)
        self.assertEqual(self.hall.issuer.count("refresh"), 1, "it is not asked all the time")
        self.let_pass(RETRY)
        self.assertEqual(self.status(), 200)
        self.assertEqual(self.hall.issuer.count("refresh"), 2)
        self.assertEqual(self.refreshes("failed"), 2)

    def test_then_it_cannot_be_told(self) -> None:
        self.hall.issuer.failure = ApiUnreachable("down")
        self.let_pass(LIFE + 60)
        client = self.hall.who(self.cookie)
        self.assertEqual(client.status, 503)
        self.assertEqual(client.headers["retry-after"], "5")
        self.assertNotIn("set-cookie", client.headers, "the session goes on")
        self.hall.issuer.failure = None
        self.assertEqual(self.status(), 200)

    def test_what_is_no_verdict_on_the_session_ends_none(self) -> None:
        for failure in (ApiRefusal(429, "over_request_rate_limit"), ApiRefusal(401, "")):
            self.hall.issuer.failure = failure
            self.let_pass(LIFE + 60)
            self.assertEqual(self.status(), 503)
            self.hall.issuer.failure = None
            self.assertEqual(self.status(), 200)

    def test_a_refusal_ends_it(self) -> None:
        self.hall.issuer.failure = ApiRefusal(400, "refresh_token_already_used")
        self.let_pass(LIFE + 60)
        client = self.hall.who(self.cookie)
        self.assertEqual(client.status, 401)
        self.assertIn("Max-Age=0", client.headers["set-cookie"])
        self.hall.issuer.failure = None
        self.assertEqual(self.status(), 401)
        self.assertEqual(self.refreshes("refused"), 1)

    def test_a_refusal_while_the_old_token_lives_ends_it_too(self) -> None:
        self.hall.issuer.failure = ApiRefusal(403, "user_banned")
        self.let_pass(LIFE - AHEAD + 1)
        self.assertEqual(self.status(), 200)
        self.hall.turn()
        self.assertEqual(self.status(), 401)

    def test_while_the_directory_is_down_what_is_known_does(self) -> None:
        self.hall.store.lose()
        self.assertEqual(self.status(), 200)
        self.let_pass(LIFE - AHEAD + 1)
        self.assertEqual(self.status(), 200)
        self.let_pass(AHEAD)
        client = self.hall.who(self.cookie)
        self.assertEqual((client.status, json.loads(client.body)["reason"]), (503, "directory"))
        self.hall.store.recover()
        self.hall.turn()
        self.assertEqual(self.status(), 200)

    def test_what_is_not_known_then_is_not_refused_either(self) -> None:
        self.hall.gate.forget_user(ALICE)
        self.hall.store.lose()
        client = self.hall.who(self.cookie)
        self.assertEqual(client.status, 503)
        self.assertNotIn("set-cookie", client.headers)

    def test_new_tokens_that_cannot_be_kept_do_for_now(self) -> None:
        self.let_pass(LIFE + 60)

        def lose(name: str, when: str) -> None:
            if name == "replace":
                self.hall.store.lose()

        sign_ins = _Meddled(self.hall.store.sign_ins, lose)
        self.hall.refresher._store = sign_ins  # type: ignore[assignment]
        self.assertEqual(self.status(), 200)


class RevokedTests(SessionCase):
    def test_a_revoked_session_is_over_and_its_tokens_gone(self) -> None:
        session = self.session()
        run(self.hall.store.sessions.revoke(session, "operator"))
        self.hall.turn()
        client = self.hall.who(self.cookie)
        self.assertEqual(client.status, 401)
        self.assertIn("Max-Age=0", client.headers["set-cookie"])
        latchkey = Handles(MASTER).read(self.handle)
        assert latchkey is not None
        [row] = run(self.hall.store.sign_ins.find(latchkey.id))
        self.assertIsNone(row)

    def test_one_revoked_during_its_refresh_stays_so(self) -> None:
        session = self.session()
        self.let_pass(LIFE + 60)
        self.hall.issuer.held = []
        client = self.hall.who(self.cookie)
        run(self.hall.store.sessions.revoke(session, "operator"))
        self.hall.issuer.answer()
        self.hall.turn()
        self.assertEqual(client.status, 401)
        self.assertEqual(self.status(), 401)


class RenewTests(SessionCase):
    def renewed(self, session: str) -> float | None:
        [found] = run(self.hall.sessions.renew(session))
        assert found is None or isinstance(found, float)
        return found

    def test_streams_keep_their_session_fresh(self) -> None:
        session = self.session()
        now = self.hall.clock.seconds()
        self.assertEqual(self.renewed(session), now + LIFE)
        self.assertEqual(self.hall.issuer.count("refresh"), 0, "it is not due")
        self.let_pass(LIFE - AHEAD + 1)
        self.assertEqual(self.renewed(session), self.hall.clock.seconds() + LIFE)
        self.assertEqual(self.hall.issuer.count("refresh"), 1)

    def test_there_is_nothing_for_others(self) -> None:
        self.assertIsNone(self.renewed("00000000-0000-4000-8000-000000000000"))

    def test_nor_while_nobody_can_be_asked(self) -> None:
        session = self.session()
        self.let_pass(LIFE + 60)
        self.hall.issuer.failure = ApiUnreachable("down")
        self.assertIsNone(self.renewed(session))
        self.hall.issuer.failure = None
        self.hall.store.lose()
        self.assertIsNone(self.renewed(session))

    def test_nor_once_it_is_over(self) -> None:
        session = self.session()
        self.hall.issuer.failure = ApiRefusal(400, "session_not_found")
        self.let_pass(LIFE + 60)
        self.assertIsNone(self.renewed(session))

    def test_handles_are_not_remembered_without_bound(self) -> None:
        self.patch(sessions, "MOST", 3)
        first = self.session()
        for _ in range(5):
            self.hall.sign_in()
        kept: BrowserSessions = self.hall.sessions
        self.assertEqual(len(kept._of_session), 3)
        self.assertEqual(len(kept._session_of), 3)
        self.assertIsNone(self.renewed(first))
        self.assertEqual(self.status(), 200, "a request brings its handle along")


class _Meddled:
    """Passes calls on, and has something happen before each."""

    def __init__(self, store: Any, before: Any) -> None:
        self._store = store
        self._before = before

    def __getattr__(self, name: str) -> Any:
        self._before(name, "before")
        return getattr(self._store, name)


async def _nobody_may(*_: object) -> bool:
    return False


def _unknown_key() -> Exception:
    return refusal(Reason.UNKNOWN_KEY)
