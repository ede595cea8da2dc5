"""The internal listener tells operators and scrapers what is so, and nobody else anything."""

from dataclasses import replace
from datetime import UTC, datetime

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import matrix
from matrix.directory import MemoryDirectory
from matrix.errors import (
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
    Unavailable,
)
from matrix.metrics import Registry, series
from matrix.model import Address, MachineState, User, UserId, UserState
from matrix.router.internal import PAGE_LIMIT, Instance, InternalApi
from matrix.testing.exchange import FakeExchange

TOKEN = "an-admin-token-of-the-test"
ALICE = UserId("0a1b2c3d-0000-4000-8000-00000000000a")
NOW = 1_795_000_000.0


class Control:
    """Wakes and suspends in the directory only; a wake takes as long as the test wants."""

    def __init__(self, directory: MemoryDirectory) -> None:
        self._directory = directory
        self.asked: list[tuple[str, UserId, str]] = []
        self.failure: Exception | None = None
        self.ready: Deferred[None] | None = None

    async def wake(self, user_id: UserId, cause: str) -> None:
        self.asked.append(("wake", user_id, cause))
        if self.failure is not None:
            raise self.failure
        if self.ready is not None:
            await self.ready
        await self._enter(user_id, MachineState.RUNNING)

    async def suspend(self, user_id: UserId, cause: str) -> None:
        self.asked.append(("suspend", user_id, cause))
        await self._enter(user_id, MachineState.SUSPENDED)

    async def _enter(self, user_id: UserId, state: MachineState) -> None:
        machine = await self._directory.create_machine(user_id, "local")
        await self._directory.change(machine, state=state)


class InternalTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.directory = MemoryDirectory(self.clock)
        self.control = Control(self.directory)
        self.registry = Registry()
        self.api = self.make(TOKEN)
        self.run_now(self.directory.admit(ALICE, "alice@example.org"))

    def make(self, token: str | None) -> InternalApi:
        instance = Instance("local", {"public": "localhost:8443"}, started_at=NOW - 12.5)
        return InternalApi(self.directory, self.control, self.registry, instance, self.clock, token)

    def run_now(self, coroutine: object) -> object:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))  # type: ignore[arg-type]

    def ask(self, target: str, method: str = "GET", token: str | None = TOKEN) -> FakeExchange:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return FakeExchange.of(method, target, headers).handle(self.api)

    def refusal(self, target: str, kind: type[Exception], method: str = "GET") -> Exception:
        error = self.ask(target, method).error
        assert isinstance(error, kind), repr(error)
        return error


class AccessTests(InternalTestCase):
    PRIVATE = (
        ("GET", "/admin/v1/status"),
        ("GET", "/admin/v1/census"),
        ("GET", "/admin/v1/strays"),
        ("GET", "/admin/v1/machines"),
        ("GET", "/admin/v1/users/alice"),
        ("GET", "/admin/v1/users/alice/events"),
        ("POST", "/admin/v1/users/alice/wake"),
        ("POST", "/admin/v1/users/alice/suspend"),
        ("POST", "/admin/v1/users/alice/block"),
        ("POST", "/admin/v1/users/alice/unblock"),
        ("POST", "/admin/v1/users/alice/delete"),
        ("GET", "/admin/v1/users/alice/sessions"),
        ("POST", "/admin/v1/users/alice/sessions/revoke"),
        ("POST", f"/admin/v1/sessions/{ALICE}/revoke"),
        ("GET", "/admin/v1/nothing"),
        ("GET", "/"),
    )

    def test_health_and_metrics_need_no_token(self) -> None:
        self.assertEqual(self.ask("/healthz", token=None).json, {"status": "ok"})
        self.assertEqual(self.ask("/metrics", token=None).status, 200)

    def test_everything_else_needs_the_token(self) -> None:
        for method, target in self.PRIVATE:
            for token in (None, "", "wrong", TOKEN + "x"):
                exchange = self.ask(target, method, token)
                self.assertIsInstance(exchange.error, Unauthorized, target)
                self.assertEqual(exchange.answer, b"")
        self.assertEqual(self.control.asked, [])
        user = self.run_now(self.directory.user(ALICE))
        assert isinstance(user, User)
        self.assertEqual(user.state, UserState.ACTIVE)
        self.assertEqual(self.run_now(self.directory.sessions.revoked()), set())

    def test_without_an_admin_token_the_admin_api_is_off(self) -> None:
        self.api = self.make(None)
        for method, target in self.PRIVATE:
            error = self.ask(target, method).error
            assert isinstance(error, Forbidden)
            self.assertIn("MATRIX_ADMIN_TOKEN", error.detail)
        self.assertEqual(self.ask("/healthz", token=None).status, 200)

    def test_unknown_paths_and_methods(self) -> None:
        self.refusal("/admin/v1/nothing", NotFound)
        self.refusal("/admin/v1/users/alice/wake", MethodNotAllowed)


class MetricsTests(InternalTestCase):
    def test_text_of_the_registry(self) -> None:
        self.registry.counter(series.AUTH, "expired").value += 2
        exchange = self.ask("/metrics")
        self.assertIn(b'matrix_auth_total{result="expired"} 2.0\n', exchange.answer)
        self.assertIn(b"text/plain", exchange.header(b"content-type") or b"")

    def test_openmetrics_when_asked(self) -> None:
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        exchange = FakeExchange.of("GET", "/metrics", accept).handle(self.api)
        self.assertTrue(exchange.answer.endswith(b"# EOF\n"))
        self.assertIn(b"openmetrics", exchange.header(b"content-type") or b"")


class StatusTests(InternalTestCase):
    def test_says_what_this_process_is_and_has(self) -> None:
        self.registry.gauge(series.OPEN_CONNECTIONS, "client").value = 3
        self.run_now(self.control.wake(ALICE, "test"))
        self.assertEqual(
            self.ask("/admin/v1/status").json,
            {
                "version": matrix.__version__,
                "uptime_s": 12.5,
                "provider": "local",
                "listeners": {"public": "localhost:8443"},
                "machines": {"running": 1},
                "open_connections": 3,
                "workers": [],
                "directory_stale_s": None,
            },
        )

    def test_counts_beyond_one_page(self) -> None:
        for number in range(PAGE_LIMIT + 1):
            someone = UserId(f"00000000-0000-4000-8000-{number:012x}")
            self.run_now(self.directory.admit(someone, f"{number}@example.org"))
            self.run_now(self.directory.create_machine(someone, "local"))
        self.assertEqual(
            self.ask("/admin/v1/status").json["machines"], {"provisioning": PAGE_LIMIT + 1}
        )

    def test_answers_while_the_database_is_gone(self) -> None:
        self.directory.lose()
        self.clock.advance(7.25)
        found = self.ask("/admin/v1/status").json
        self.assertEqual((found["machines"], found["directory_stale_s"]), (None, 7.25))


class MachinesTests(InternalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ids = [UserId(f"00000000-0000-4000-8000-{n:012x}") for n in range(5)]
        for someone in self.ids:
            self.run_now(self.directory.admit(someone, ""))
            self.run_now(self.directory.create_machine(someone, "local"))

    def page(self, query: str) -> tuple[list[str], str | None]:
        found = self.ask(f"/admin/v1/machines{query}").json
        return [machine["user"] for machine in found["machines"]], found["next"]

    def test_all_at_once(self) -> None:
        self.assertEqual(self.page(""), (self.ids, None))

    def test_page_by_page(self) -> None:
        self.assertEqual(self.page("?limit=2"), (self.ids[:2], self.ids[1]))
        self.assertEqual(self.page(f"?limit=2&after={self.ids[1]}"), (self.ids[2:4], self.ids[3]))
        self.assertEqual(self.page(f"?limit=2&after={self.ids[3]}"), (self.ids[4:], None))

    def test_bad_paging_is_refused(self) -> None:
        for query in ("limit=0", "limit=1001", "limit=x", "limit=", "limit=%D9%A3", "after=bob"):
            self.refusal(f"/admin/v1/machines?{query}", BadRequest)


class UserTests(InternalTestCase):
    def test_found_by_id_address_and_name(self) -> None:
        for text in (ALICE, ALICE.upper(), "alice@example.org", "alice", "ALICE%40example.org"):
            self.assertEqual(self.ask(f"/admin/v1/users/{text}").json["id"], ALICE)

    def test_with_machine(self) -> None:
        self.run_now(self.control.wake(ALICE, "test"))
        machine = self.run_now(self.directory.machine(ALICE))
        at = datetime(2026, 11, 23, 12, tzinfo=UTC)
        changed = {"address": Address(path="/run/a.sock"), "last_wake_at": at, "wake_cause": "test"}
        self.run_now(self.directory.change(machine, **changed))  # type: ignore[arg-type]
        found = self.ask("/admin/v1/users/alice").json
        self.assertEqual((found["email"], found["state"]), ("alice@example.org", "active"))
        self.assertIsNone(found["busy"])
        self.assertEqual(found["machine"]["state"], "running")
        self.assertEqual(found["machine"]["address"], "unix:/run/a.sock")
        self.assertEqual(found["machine"]["last_wake_at"], "2026-11-23T12:00:00+00:00")

    def test_without_machine(self) -> None:
        self.assertIsNone(self.ask("/admin/v1/users/alice").json["machine"])

    def test_nobody_of_that_name(self) -> None:
        for path, method in (("", "GET"), ("/events", "GET"), ("/wake", "POST")):
            error = self.refusal(f"/admin/v1/users/mallory{path}", NotFound, method)
            self.assertIn("'mallory'", str(error))

    def test_ambiguous_name_is_nobody(self) -> None:
        other = UserId(ALICE.replace("a", "b"))
        self.run_now(self.directory.admit(other, "alice@elsewhere.org"))
        self.refusal("/admin/v1/users/alice", NotFound)

    def test_the_database_is_gone(self) -> None:
        self.directory.lose()
        error = self.refusal("/admin/v1/users/alice", Unavailable)
        self.assertIn("database", str(error))


class EventsTests(InternalTestCase):
    def test_newest_first_and_no_more_than_asked_for(self) -> None:
        for number in range(3):
            self.run_now(self.directory.record(ALICE, "wake", "request", {"ms": number}))
        found = self.ask("/admin/v1/users/alice/events?limit=2").json
        self.assertEqual((found["user"], found["email"]), (ALICE, "alice@example.org"))
        self.assertEqual([event["detail"]["ms"] for event in found["events"]], [2, 1])
        self.assertEqual(
            found["events"][0] | {"detail": 0},
            {"at": "2026-11-18T11:06:40+00:00", "kind": "wake", "cause": "request", "detail": 0},
        )


class ControlTests(InternalTestCase):
    def test_wake_answers_when_the_machine_is_ready(self) -> None:
        self.control.ready = Deferred()
        exchange = self.ask("/admin/v1/users/alice/wake", "POST")
        self.assertEqual(exchange.state, "waiting")
        self.clock.advance(0.412)
        self.control.ready.callback(None)
        expected = {"user": ALICE, "email": "alice@example.org", "state": "running", "ms": 412}
        self.assertEqual(exchange.json, expected)
        self.assertEqual(self.control.asked, [("wake", ALICE, "operator")])

    def test_a_failed_wake_says_why(self) -> None:
        self.control.failure = Unavailable("it did not answer within 30 s", retry_after=3)
        error = self.refusal("/admin/v1/users/alice/wake", Unavailable, "POST")
        self.assertIn("30 s", str(error))

    def test_suspend(self) -> None:
        exchange = self.ask("/admin/v1/users/alice/suspend", "POST")
        self.assertEqual(exchange.json["state"], "suspended")
        self.assertEqual(self.control.asked, [("suspend", ALICE, "operator")])

    def test_what_keeps_a_machine_awake(self) -> None:
        self.run_now(self.directory.busy.hold(ALICE, "indexing", 600.0, 3600.0))
        busy = self.ask("/admin/v1/users/alice").json["busy"]
        self.assertEqual(busy["reason"], "indexing")
        lasts = datetime.fromisoformat(busy["until"]) - datetime.fromisoformat(busy["since"])
        self.assertEqual(lasts.total_seconds(), 600)

    def test_a_blocked_user_can_be_looked_at(self) -> None:
        alice = self.run_now(self.directory.user(ALICE))
        self.directory.put_user(replace(alice, state=UserState.BLOCKED))  # type: ignore[type-var]
        self.assertEqual(self.ask("/admin/v1/users/alice").json["state"], "blocked")
