"""The client of Fly's API: what it sends, what it makes of answers, and of none."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs

from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent, _SynchronousProducer
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from matrix.directory import MemoryDirectory
from matrix.machines._fly import FlyClient
from matrix.machines._fly_errors import FlyError, Verdict
from matrix.machines._fly_http import CALL_TIMEOUT, FlyHttp
from matrix.machines._fly_types import FlyMachine
from matrix.testing.fly.schema import breaches, document

TOKEN = "fm2_very-secret"
MACHINE = FlyMachine(id="3d8", state="stopped", instance_id="01H")
ANSWER = {"id": "3d8", "state": "started", "instance_id": "01H", "something": "new"}


class Fly(Resource):
    """Answers what it is told to, and remembers what it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str, dict[str, str], Any, dict[str, str]]] = []
        self.answers: list[tuple[int, object, dict[str, str]]] = []
        self.mute = False

    def render(self, request: Any) -> Any:
        body = request.content.read()
        target, _, query = request.uri.decode().partition("?")
        headers = {
            name.decode().lower(): values[0].decode()
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        fields = {name: values[0] for name, values in parse_qs(query).items()}
        loaded = json.loads(body) if body else None
        self.asked.append((request.method.decode(), target, fields, loaded, headers))
        if self.mute:
            return NOT_DONE_YET
        status, answer, more = self.answers.pop(0) if self.answers else (200, ANSWER, {})
        request.setResponseCode(status)
        for name, value in {"fly-request-id": "01REQ", **more}.items():
            request.setHeader(name, value)
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


class FlyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.fly = Clock(), Fly()
        self.agent: Any = RequestTraversalAgent(self.fly)
        self.http = FlyHttp(self.agent, self.clock, "https://api.example/", TOKEN)
        # Bodies are otherwise sent bit by bit, by the real reactor.
        self.http._http = HTTPClient(self.agent, data_to_body_producer=_SynchronousProducer)
        self.client = FlyClient(self.http)

    def answer(self, status: int, document: object = None, **headers: str) -> None:
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        self.fly.answers.append((status, document, more))

    def begin(self, asking: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        running = Deferred.fromCoroutine(asking)
        flush: Callable[[], None] = getattr(self.agent, "flush", lambda: None)
        flush()
        return running

    def done(self, asking: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(self.begin(asking))

    def refused(self, asking: Coroutine[Any, Any, Any]) -> FlyError:
        error = self.failureResultOf(self.begin(asking), FlyError).value  # type: ignore[no-untyped-call]
        assert isinstance(error, FlyError)
        self.assertNotIn(TOKEN, f"{error} {error!r}")
        return error


class RequestTests(FlyCase):
    """Every call is one that the description has, and its body breaches nothing."""

    def sent(self, asking: Coroutine[Any, Any, Any]) -> tuple[str, str, dict[str, str], Any]:
        self.done(asking)
        method, path, query, body, headers = self.fly.asked[-1]
        self.assertEqual(headers["authorization"], f"Bearer {TOKEN}")
        self.assertTrue(path.startswith("/v1/"))
        self.check_described(method, path.removeprefix("/v1"), query, body)
        return method, path, query, body

    def check_described(self, method: str, path: str, query: dict[str, str], body: Any) -> None:
        parts = path.split("/")
        for described in document()["paths"]:
            names = described.split("/")
            if len(names) == len(parts) and all(
                name == part or name.startswith("{")
                for name, part in zip(names, parts, strict=True)
            ):
                break
        else:
            self.fail(f"{path} is not described")
        operation = document()["paths"][described][method.lower()]
        known = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
        unknown = {name for name in query if not name.startswith("metadata.")} - known
        self.assertEqual(unknown, set())
        if body:
            content = operation["requestBody"]["content"]["application/json"]["schema"]
            self.assertEqual(breaches(content["$ref"].rpartition("/")[2], body), [])

    def test_apps(self) -> None:
        self.sent(self.client.create_app("matrix", "org", "net"))
        self.assertTrue(self.done(self.client.has_app("matrix")))
        self.answer(404, {"error": "not found"})
        self.assertFalse(self.done(self.client.has_app("other")))

    def test_create(self) -> None:
        method, path, _, body = self.sent(
            self.client.create_machine("a", "m-1", "fra", {"image": "i", "guest": {"cpus": 1}})
        )
        self.assertEqual((method, path), ("POST", "/v1/apps/a/machines"))
        self.assertEqual(body, {"name": "m-1", "region": "fra",
                                "config": {"image": "i", "guest": {"cpus": 1}}})  # fmt: skip

    def test_update_names_the_version_it_was_decided_on(self) -> None:
        *_, body = self.sent(self.client.update_machine("a", MACHINE, {"image": "j"}))
        self.assertEqual(
            body, {"config": {"image": "j"}, "current_version": "01H", "skip_launch": True}
        )

    def test_start_stop_suspend_destroy(self) -> None:
        for asking, method, path in (
            (self.client.start("a", "3d8"), "POST", "/start"),
            (self.client.stop("a", "3d8"), "POST", "/stop"),
            (self.client.suspend("a", "3d8"), "POST", "/suspend"),
            (self.client.destroy("a", "3d8"), "DELETE", ""),
        ):
            sent = self.sent(asking)
            self.assertEqual(sent[:2], (method, f"/v1/apps/a/machines/3d8{path}"))

    def test_the_lease_goes_along(self) -> None:
        self.done(self.client.start("a", "3d8", nonce="n1"))
        self.assertEqual(self.fly.asked[-1][4]["fly-machine-lease-nonce"], "n1")

    def test_wait(self) -> None:
        self.answer(200, {"ok": True, "state": "started"})
        *_, query, _ = self.sent(self.client.wait("a", MACHINE, "started", 12.4))
        self.assertEqual(query, {"state": "started", "timeout": "12"})
        for state in ("stopped", "suspended"):
            *_, query, _ = self.sent(self.client.wait("a", MACHINE, state, 5))
            self.assertEqual((query["version"], query["instance_id"]), ("01H", "01H"))
        for seconds, sent in ((0.2, "1"), (300, "60")):
            self.clock.advance(10)
            *_, query, _ = self.sent(self.client.wait("a", MACHINE, "started", seconds))
            self.assertEqual(query["timeout"], sent)

    def test_list_by_metadata(self) -> None:
        self.answer(200, [ANSWER])
        *_, query, _ = self.sent(self.client.machines("a", matrix_user="u 1"))
        self.assertEqual(query, {"metadata.matrix_user": "u 1"})

    def test_metadata_lease_volumes(self) -> None:
        self.answer(204, b"")
        self.sent(self.client.set_metadata("a", "3d8", "k/1", "v"))
        self.answer(201, {"nonce": "n", "expires_at": 5})
        self.assertEqual(self.done(self.client.acquire_lease("a", "3d8", 30, "x")).nonce, "n")
        self.answer(201, {"status": "success", "data": {"nonce": "m", "expires_at": 6}})
        self.assertEqual(self.done(self.client.acquire_lease("a", "3d8", 30, "x")).nonce, "m")
        self.sent(self.client.release_lease("a", "3d8", "n"))
        volume = {"id": "vol_1", "state": "created"}
        self.answer(200, volume)
        self.sent(self.client.create_volume("a", {"name": "data", "region": "fra", "size_gb": 1}))
        self.answer(200, volume)
        self.sent(self.client.volume("a", "vol_1"))
        self.answer(200, [volume, volume | {"state": "pending_destroy"}])
        self.assertEqual(len(self.done(self.client.volumes("a"))), 1)
        self.sent(self.client.delete_volume("a", "vol_1"))
        self.answer(200, [{"id": "vs_1"}])
        self.sent(self.client.snapshots("a", "vol_1"))

    def test_pages_of_an_organisation(self) -> None:
        self.answer(200, {"machines": [ANSWER], "next_cursor": "c", "error_regions": ["fra"]})
        *_, query, _ = self.sent(self.client.org_machines("org"))
        self.assertEqual(query, {"limit": "1000"})
        self.answer(200, {"volumes": [{"id": "v", "state": "created"}]})
        *_, query, _ = self.sent(self.client.org_volumes("org", "c"))
        self.assertEqual(query, {"limit": "1000", "cursor": "c"})

    def test_names_cannot_leave_their_place(self) -> None:
        self.done(self.client.machine("a/b", "../x"))
        self.assertEqual(self.fly.asked[-1][1], "/v1/apps/a%2Fb/machines/..%2Fx")

    def test_a_macaroon_brings_its_own_scheme(self) -> None:
        http = FlyHttp(self.agent, self.clock, "https://api.example", "FlyV1 fm2_x")
        self.done(FlyClient(http).machine("a", "3d8"))
        self.assertEqual(self.fly.asked[-1][4]["authorization"], "FlyV1 fm2_x")


class AnswerTests(FlyCase):
    def test_members_that_are_new_to_us_are_passed_over(self) -> None:
        machine = self.done(self.client.machine("a", "3d8"))
        self.assertEqual((machine.id, machine.state, machine.kind), ("3d8", "started", "started"))

    def test_states_that_are_new_to_us_are_taken_to_pass(self) -> None:
        self.assertEqual(FlyMachine(id="1", state="thawing").kind, "transient")

    def test_a_start_of_what_runs_is_a_success(self) -> None:
        self.answer(409, {"error": "aborted: machine still attempting to start"})
        self.assertEqual(self.done(self.client.start("a", "3d8")).previous_state, "starting")
        self.answer(200, {"previous_state": "started", "migrated": False})
        self.assertEqual(self.done(self.client.start("a", "3d8")).previous_state, "started")

    def test_an_error_inside_a_success(self) -> None:
        self.answer(200, {"status": "error", "message": "it did not"})
        self.assertIs(self.refused(self.client.start("a", "3d8")).verdict, Verdict.AMBIGUOUS)

    def test_destroying_what_is_gone_is_a_success(self) -> None:
        self.answer(404, {"error": "machine not found"})
        self.done(self.client.destroy("a", "3d8"))
        self.answer(404, {"error": "volume not found"})
        self.done(self.client.delete_volume("a", "vol_1"))

    def test_an_answer_that_is_none(self) -> None:
        for body in (b"<html>", b"", b"[]", b'{"id": 5}'):
            self.clock.advance(10)
            self.answer(200, body)
            error = self.refused(self.client.machine("a", "3d8"))
            self.assertEqual((error.reason, error.verdict), ("bad-answer", Verdict.SOON))


class RefusalTests(FlyCase):
    def test_says_what_and_under_which_request_id(self) -> None:
        self.answer(422, {"error": "could not find a candidate host"})
        error = self.refused(self.client.create_machine("a", "m", "fra", {}))
        self.assertEqual((error.verdict, error.status), (Verdict.NO_CAPACITY, 422))
        self.assertEqual(error.request_id, "01REQ")
        self.assertEqual(
            str(error),
            "POST /apps/a/machines: 422 could not find a candidate host (fly-request-id 01REQ)",
        )

    def test_too_fast_closes_the_bucket(self) -> None:
        self.answer(429, {"error": "rate limited"}, Retry_After="7")
        error = self.refused(self.client.start("a", "3d8"))
        self.assertEqual((error.verdict, error.retry_after), (Verdict.SOON, 7.0))
        waiting = self.begin(self.client.start("a", "3d8"))
        self.clock.advance(6.5)
        self.assertNoResult(waiting)
        self.assertEqual(len(self.fly.asked), 1)
        self.clock.advance(0.6)
        self.successResultOf(waiting)

    def test_our_own_limit_comes_before_theirs(self) -> None:
        running = [self.begin(self.client.start("a", "3d8")) for _ in range(5)]
        self.assertEqual([one.called for one in running], [True] * 3 + [False] * 2)
        other = self.begin(self.client.start("a", "another"))
        self.successResultOf(other)
        self.clock.advance(1)
        self.clock.advance(1)
        for one in running:
            self.successResultOf(one)


class SharedPaceTests(FlyCase):
    """Several processes, each with a limit of its own, and one that they share."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = MemoryDirectory(self.clock)
        self.clients = []
        for _ in range(3):
            http = FlyHttp(
                self.agent, self.clock, "https://api.example", TOKEN, paces=self.directory.paces
            )
            http._http = HTTPClient(self.agent, data_to_body_producer=_SynchronousProducer)
            self.clients.append(FlyClient(http))

    def create(self) -> list[Deferred[Any]]:
        """Each process makes two machines."""
        return [
            self.begin(client.create_machine("a", f"m{number}", "fra", {}))
            for number in range(2)
            for client in self.clients
        ]

    def test_what_concerns_an_app_is_asked_at_the_pace_of_one(self) -> None:
        running = self.create()
        for asked in (3, 4, 5, 6):
            self.assertEqual(len(self.fly.asked), asked)
            self.clock.advance(1.0)
        for one in running:
            self.successResultOf(one)

    def test_who_gives_up_while_waiting_takes_nobodys_turn(self) -> None:
        crowd = [
            self.begin(client.create_machine("a", f"m{number}", "fra", {}))
            for number in range(20)
            for client in self.clients
        ]
        self.clock.pump([1.0] * 10)
        for one in reversed(crowd):
            if not one.called:
                one.cancel()
                self.failureResultOf(one, CancelledError)
        waiting = self.begin(self.clients[0].create_machine("a", "n", "fra", {}))
        self.clock.pump([1.0] * 4)
        self.successResultOf(waiting)

    def test_one_listing_of_volumes_does_for_all_who_wait_for_it(self) -> None:
        self.fly.answers = [(200, [], {}) for _ in range(9)]
        first, second, _ = self.clients
        for _ in range(3):
            self.assertEqual(self.successResultOf(self.begin(first.volumes("a"))), [])
        waiting = [self.begin(client.volumes("a")) for client in (first, second) * 10]
        waiting[0].cancel()
        self.failureResultOf(waiting.pop(0), CancelledError)
        self.assertEqual(len(self.fly.asked), 3)
        self.clock.pump([1.0] * 2)
        for each in waiting:
            self.assertEqual(self.successResultOf(each), [])
        self.assertEqual(len(self.fly.asked), 5, "one of each process")

    def test_a_listing_that_nobody_waits_for_ends_with_the_client(self) -> None:
        self.fly.mute = True
        client = self.clients[0]
        gone, waiting = (self.begin(client.volumes("a")) for _ in range(2))
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        client.close()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_to_be_noted_before_a_call_is_noted_at_its_turn(self) -> None:
        noted: list[int] = []

        async def note() -> None:
            noted.append(len(self.fly.asked))

        answer = {"id": "vol_1", "state": "created"}
        self.fly.answers = [(200, answer, {}) for _ in range(4)]
        running = [
            self.begin(client.create_volume("a", {"name": "v"}, before=note))
            for client in (*self.clients, self.clients[0])
        ]
        self.assertEqual(noted, [0, 1, 2])
        self.clock.advance(1.0)
        self.assertEqual(noted, [0, 1, 2, 3])
        for each in running:
            self.successResultOf(each)

    def test_who_comes_after_a_listing_was_asked_for_has_their_own(self) -> None:
        self.fly.mute = True
        early = self.begin(self.clients[0].volumes("a"))
        self.assertEqual(len(self.fly.asked), 1)
        self.fly.mute, self.fly.answers = False, [(200, [], {})]
        self.assertEqual(self.done(self.clients[0].volumes("a")), [])
        self.assertNoResult(early)

    def test_what_concerns_a_machine_is_nobody_elses(self) -> None:
        calls = self.directory.calls
        for client in self.clients:
            for _ in range(3):
                self.successResultOf(self.begin(client.start("a", "3d8")))
        self.assertEqual(self.directory.calls, calls)

    def test_a_refusal_holds_all_of_them_up(self) -> None:
        self.answer(429, {"error": "rate limited"}, Retry_After="7")
        first, *others = self.clients
        failed = self.begin(first.create_machine("a", "m", "fra", {}))
        self.failureResultOf(failed, FlyError)
        waiting = self.begin(others[0].create_machine("a", "n", "fra", {}))
        self.clock.advance(6.5)
        self.assertNoResult(waiting)
        self.clock.advance(0.6)
        self.successResultOf(waiting)

    def test_without_the_directory_each_keeps_to_its_own(self) -> None:
        self.directory.lose()
        for one in self.create():
            self.successResultOf(one)
        self.answer(429, {"error": "rate limited"})
        failed = self.begin(self.clients[0].create_machine("a", "m", "fra", {}))
        self.failureResultOf(failed, FlyError)


class SilenceTests(FlyCase):
    def unheard(self, error: BaseException) -> FlyError:
        class Broken:
            def request(self, *_arguments: object, **_named: object) -> Deferred[Any]:
                return fail(error)

        self.client = FlyClient(FlyHttp(Broken(), self.clock, "https://api.example", TOKEN))  # type: ignore[arg-type]
        return self.refused(self.client.create_machine("a", "m", "fra", {}))

    def test_what_was_not_sent_may_be_sent_again(self) -> None:
        self.assertIs(self.unheard(ConnectionRefusedError()).verdict, Verdict.SOON)

    def test_what_was_sent_is_looked_at(self) -> None:
        lost = ResponseNeverReceived([Failure(ConnectionLost())])
        self.assertIs(self.unheard(lost).verdict, Verdict.AMBIGUOUS)

    def test_no_answer_in_time(self) -> None:
        self.fly.mute = True
        waiting = self.begin(self.client.start("a", "3d8"))
        self.clock.advance(CALL_TIMEOUT + 1)
        error = self.failureResultOf(waiting, FlyError).value  # type: ignore[no-untyped-call]
        self.assertEqual((error.reason, error.verdict), ("unheard", Verdict.AMBIGUOUS))

    def test_a_call_that_is_given_up_is_cancelled(self) -> None:
        self.fly.mute = True
        waiting = self.begin(self.client.start("a", "3d8"))
        waiting.addErrback(lambda failure: failure.type.__name__)
        waiting.cancel()
        self.assertEqual(self.successResultOf(waiting), "CancelledError")
