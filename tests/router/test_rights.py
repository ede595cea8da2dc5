"""Rights: who is blocked, deleted or revoked loses what is under way, whatever that is."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import DirectoryUnavailable
from matrix.http import close_frame
from matrix.metrics import series
from matrix.model import MachineState, Principal, User, UserState
from matrix.router import rights
from matrix.router.rights import RETRY
from tests.router.streams import STREAM, open_websocket
from tests.router.world import ALICE, BOB, NOW, Client, World, run


class RightsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.gate.accept(b"alice-phone", Principal(ALICE, "phone", NOW + 3600))

    def set_state(self, state: UserState, world: World | None = None) -> None:
        """As an operator does."""
        [user] = run((world or self.world).store.set_user_state(ALICE, state))
        self.assertIsInstance(user, User)

    def block(self) -> None:
        self.set_state(UserState.BLOCKED)
        self.world.turn()

    def revoke(self, session: str = "a") -> None:
        run(self.world.store.sessions.revoke(session, "operator"))
        self.world.turn()

    def websocket(self, world: World | None = None, token: str = "alice-token") -> Client:
        return open_websocket(world or self.world, token).reset()

    def events(self, world: World | None = None, token: str = "alice-token") -> Client:
        world = world or self.world
        world.place().answer = STREAM
        client = world.ask("/events", token=token)
        world.let_pass(0.2)
        self.assertEqual(client.status, 200)
        return client.reset()

    def under_way(self, token: str = "alice-token", **request: Any) -> Client:
        """A request that the machine does not answer yet."""
        place = self.world.place()
        place.mute = True
        client = self.world.ask("/slow", token=token, **request)
        self.world.let_pass(0.1)
        place.mute = False
        self.assertFalse(client.answered)
        return client

    def assert_closed(self, client: Client, code: int, reason: str) -> None:
        self.assertEqual(client.transport.data, close_frame(code, reason))

    def assert_refused(self, client: Client, status: int, reason: str) -> None:
        self.assertEqual(client.status, status)
        problem = json.loads(client.body)
        self.assertEqual(problem["reason"], reason)

    def lost(self, kind: str, cause: str) -> float:
        return self.world.registry.counter(series.RIGHTS_LOST, kind, cause).value


class BlockedTests(RightsCase):
    def test_streams(self) -> None:
        self.world.awake()
        socket, events = self.websocket(), self.events()
        self.block()
        self.assert_closed(socket, 4403, "blocked")
        self.assertEqual(events.transport.data, b"0\r\n\r\n")
        self.assertEqual((self.lost("websocket", "blocked"), self.lost("sse", "blocked")), (1, 1))
        self.assertEqual(len(self.world.bonds), 0)
        self.assertEqual(self.world.log.records[-1].close_reason, "blocked")

    def test_deleted(self) -> None:
        self.world.awake()
        socket, request = self.websocket(), self.under_way()
        self.set_state(UserState.DELETED)
        self.world.turn()
        self.assert_closed(socket, 4403, "deleted")
        self.assert_refused(request, 410, "deleted")

    def test_a_request_under_way(self) -> None:
        self.world.awake()
        request = self.under_way()
        self.block()
        self.assert_refused(request, 403, "blocked")
        self.assertEqual(self.world.route().requests, 0)
        self.assertTrue(request.transport.disconnecting)

    def test_a_download(self) -> None:
        self.world.awake()
        self.world.place().answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
        client = self.world.ask()
        self.world.let_pass(0.1)
        self.block()
        self.assertTrue(client.transport.aborted)
        self.assertEqual(self.lost("http", "blocked"), 1)

    def test_an_upload(self) -> None:
        self.world.awake()
        client = self.under_way(method="POST", Content_Length="1000000")
        client.connection.dataReceived(b"x" * 1000)
        self.block()
        self.assert_refused(client, 403, "blocked")
        self.assertTrue(self.world.place().open[-1].transport.aborted)

    def test_requests_that_wait_for_their_machine(self) -> None:
        self.world.asleep()
        clients = [self.world.ask(), self.world.ask(Accept="text/html", Sec_Fetch_Mode="navigate")]
        self.block()
        self.assertEqual([client.status for client in clients], [403, 403])
        self.assertEqual(len(self.world.route().waiters), 0)
        self.world.let_pass(2)
        self.assertEqual(self.world.real(), MachineState.SUSPENDED)

    def test_a_waking_page_that_listens(self) -> None:
        self.world.asleep()
        page = self.world.ask("/-/wake/events")
        self.assertEqual(page.status, 200)
        self.block()
        self.assertTrue(page.transport.disconnecting)
        page.leave()
        self.assertEqual(len(self.world.route().listeners), 0)

    def test_while_the_machine_goes_to_sleep(self) -> None:
        route = self.world.awake()
        socket = self.websocket()
        route.machine.rest("operator")
        self.world.turn()
        self.assertIsNone(route.backend)
        late = self.world.ask()
        self.block()
        self.assertEqual(late.status, 403)
        self.assertIn(b"\x11\x33blocked", socket.transport.data)

    def test_on_connections_of_before(self) -> None:
        route = self.world.awake()
        socket, request = self.websocket(), self.under_way()
        route.machine.lost()
        self.assertEqual(len(route.former), 1)
        self.block()
        self.assert_closed(socket, 4403, "blocked")
        self.assert_refused(request, 403, "blocked")
        self.assertEqual(route.backends(), [])

    def test_further_requests(self) -> None:
        """None slips through, not even before the route's machine is looked at."""
        self.world.awake()
        answers: list[Client] = []

        def ask(name: str, when: str) -> None:
            answers.append(self.world.ask())

        self.world.directory.step = ask
        self.block()
        self.world.directory.step = None
        answers.append(self.world.ask())
        self.world.let_pass(0.5)
        self.assertEqual({client.status for client in answers}, {403})
        self.assertEqual(len(self.world.place().heads), 0)

    def test_let_in_again(self) -> None:
        self.world.awake()
        self.block()
        self.assertEqual(self.world.ask().status, 403)
        self.world.let_pass(1)
        self.set_state(UserState.ACTIVE)
        client = self.world.ask()
        self.world.let_pass(1)
        self.assertEqual(client.status, 200)

    def test_everybody_else_stays(self) -> None:
        self.world.awake()
        self.world.awake(BOB)
        self.world.place(BOB).answer = STREAM
        client = self.world.ask("/events", token="bob-token")
        self.world.let_pass(0.2)
        client.reset()
        self.block()
        self.assertEqual((client.transport.data, client.transport.disconnecting), (b"", False))

    def test_on_every_router(self) -> None:
        other = World(owner="router:2", within=self.world)
        self.world.awake()
        other.awake()
        sockets = [self.websocket(), self.websocket(other)]
        self.block()
        for socket in sockets:
            self.assert_closed(socket, 4403, "blocked")

    def test_a_crowd(self) -> None:
        """Nobody of it hears of the sleep that the machine is put to."""
        self.patch(rights, "BATCH", 20)
        self.world.awake()
        sockets = [open_websocket(self.world, wait=0.0).reset() for _ in range(50)]
        self.block()
        for socket in sockets:
            self.assert_closed(socket, 4403, "blocked")


class RevokedTests(RightsCase):
    def test_the_session_alone(self) -> None:
        self.world.awake()
        mine, phone = self.websocket(), self.websocket(token="alice-phone")
        events, request = self.events(), self.under_way()
        self.revoke()
        self.assert_closed(mine, 4401, "revoked")
        self.assertEqual(events.transport.data, b"0\r\n\r\n")
        self.assert_refused(request, 401, "revoked")
        self.assertIn("revoked", request.headers["www-authenticate"])
        self.assertEqual(phone.transport.data, b"")
        self.assertEqual(list(self.world.bonds), ["phone"])

    def test_a_crowd_is_ended_a_few_at_a_time(self) -> None:
        self.patch(rights, "BATCH", 20)
        self.world.awake()
        sockets = [open_websocket(self.world, wait=0.0) for _ in range(50)]
        run(self.world.store.sessions.revoke("a", "operator"))
        most, before = 0.0, 0.0
        for _ in range(50):
            self.world.clock.advance(0.001)
            now = self.lost("websocket", "revoked")
            most, before = max(most, now - before), now
        self.assertEqual((before, most), (len(sockets), 20))

    def test_all_of_a_user_the_newest_included(self) -> None:
        """What this router has seen and not yet noted, nobody else can know of."""
        self.world.awake()
        sockets = [self.websocket(), self.websocket(token="alice-phone")]
        self.world.awake(BOB)
        self.world.place(BOB).answer = STREAM
        other = self.world.ask("/events", token="bob-token")
        self.world.let_pass(0.2)
        other.reset()
        run(self.world.store.sessions.revoke_user(ALICE, "operator"))
        self.world.turn()
        for socket in sockets:
            self.assert_closed(socket, 4401, "revoked")
        self.assertEqual((other.transport.data, other.transport.disconnecting), (b"", False))
        for session in ("a", "phone"):
            self.assertTrue(self.world.store.sessions.is_revoked(session))

    def test_its_tokens_are_refused_from_then_on(self) -> None:
        self.world.awake()
        self.revoke()
        self.assert_refused(self.world.ask(), 401, "revoked")
        client = self.world.ask(token="alice-phone")
        self.world.let_pass(0.2)
        self.assertEqual(client.status, 200)

    def test_what_a_verifier_other_than_the_gate_vouches_for(self) -> None:
        """A ticket says who somebody was when it was made."""
        self.revoke()
        for principal, reason in (
            (Principal(ALICE, "a", NOW + 3600), "revoked"),
            (Principal(ALICE, "phone", NOW + 3600), None),
        ):
            if reason is None:
                self.world.rights.check(principal)
            else:
                with self.assertRaises(Exception) as caught:
                    self.world.rights.check(principal)
                self.assertEqual(caught.exception.reason, reason)

    def test_before_the_router_started(self) -> None:
        self.revoke()
        later = World(owner="router:2", within=self.world)
        self.assert_refused(later.ask(), 401, "revoked")

    def test_forgotten_when_its_tokens_have_expired(self) -> None:
        self.revoke()
        self.world.wheel.stop()  # or it would turn through each half second
        self.world.clock.advance(401 * 86400)
        run(self.world.rights.refresh())
        self.world.rights.check(Principal(ALICE, "a", NOW + 3600))


class GapTests(RightsCase):
    """Nobody was listening for a while."""

    def gap(self, *changes: Any) -> None:
        """Changes that this router does not hear of."""
        watchers = self.world.store.sessions.watchers._watchers
        heard, watchers[:] = watchers[:], []
        for change in changes:
            run(change)
        watchers[:] = heard
        self.world.store.lose()
        self.world.store.recover()
        self.world.turn()

    def test_who_was_blocked(self) -> None:
        self.world.awake()
        socket, request = self.websocket(), self.under_way()
        self.gap(self.world.store.set_user_state(ALICE, UserState.BLOCKED))
        self.assert_closed(socket, 4403, "blocked")
        self.assert_refused(request, 403, "blocked")

    def test_whose_session_was_revoked(self) -> None:
        self.world.awake()
        mine, phone = self.websocket(), self.websocket(token="alice-phone")
        self.gap(self.world.store.sessions.revoke("a", "operator"))
        self.assert_closed(mine, 4401, "revoked")
        self.assertEqual(phone.transport.data, b"")
        self.assert_refused(self.world.ask(), 401, "revoked")

    def test_who_was_let_in_again(self) -> None:
        self.world.awake()
        self.block()
        self.world.let_pass(1)
        self.gap(self.world.store.set_user_state(ALICE, UserState.ACTIVE))
        client = self.world.ask()
        self.world.let_pass(1)
        self.assertEqual(client.status, 200)

    def test_nothing_changed(self) -> None:
        self.world.awake()
        socket = self.websocket()
        self.gap()
        self.assertEqual(socket.transport.data, b"")

    def test_asked_until_there_is_an_answer(self) -> None:
        self.world.awake()
        socket = self.websocket()
        failures = 2

        def fail(name: str, when: str) -> None:
            nonlocal failures
            if name == "not_active" and failures:
                failures -= 1
                raise DirectoryUnavailable("not yet")

        self.world.directory.step = fail
        self.gap(self.world.store.sessions.revoke("a", "operator"))
        self.assertEqual(socket.transport.data, b"")
        self.world.let_pass(2 * RETRY + 0.1)
        self.assert_closed(socket, 4401, "revoked")

    def test_what_is_heard_while_asking_is_newer_than_the_answer(self) -> None:
        self.world.awake()
        waiting: Deferred[None] = Deferred()
        self.world.directory.step = lambda name, when: (
            waiting if (name, when) == ("not_active", "after") else None
        )
        self.gap()
        run(self.world.store.sessions.revoke("a", "operator"))
        self.set_state(UserState.BLOCKED)
        self.world.directory.step = None
        waiting.callback(None)
        self.world.turn()
        self.assertEqual(self.world.ask(token="alice-phone").status, 403)
        self.set_state(UserState.ACTIVE)
        self.assert_refused(self.world.ask(), 401, "revoked")

    def test_let_in_again_while_asking(self) -> None:
        self.world.awake()
        self.block()
        waiting: Deferred[None] = Deferred()
        self.world.directory.step = lambda name, when: (
            waiting if (name, when) == ("not_active", "after") else None
        )
        self.gap()
        self.set_state(UserState.ACTIVE)
        self.world.directory.step = None
        waiting.callback(None)
        self.world.turn()
        self.world.rights.check(Principal(ALICE, "a", NOW + 3600))
