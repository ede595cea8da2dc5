"""Machines say that they are busy, are kept awake for it, and not for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from json import dumps
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import MachineProof, MachineSecrets
from matrix.directory import MemoryDirectory
from matrix.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    PayloadTooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from matrix.model import Busy, Machine, MachineState, User, UserId, UserState
from matrix.router.busy import BURST, BusyApi
from matrix.router.leases import Leases, end_of
from matrix.router.machine_api import MachineApi
from matrix.testing.exchange import FakeExchange

ALICE = UserId("0a1b2c3d-0000-4000-8000-00000000000a")
NOW = 1_795_000_000.0
NOON = datetime.fromtimestamp(NOW, UTC)


def lease(seconds: float) -> Busy:
    """One that begins at noon."""
    return Busy(ALICE, "indexing", NOON, NOON + timedelta(seconds=seconds))


def used(active: float | None, woken: float | None) -> Machine:
    """A machine that was last used so many seconds after noon."""
    times = [None if at is None else NOON + timedelta(seconds=at) for at in (active, woken)]
    return Machine(
        ALICE,
        "local",
        MachineState.RUNNING,
        1,
        last_active_at=times[0],
        last_wake_at=times[1],
    )


class EndTests(SynchronousTestCase):
    """An hour without use is the most."""

    def ends(self, seconds: float, machine: Machine | None) -> float:
        return (end_of(lease(seconds), machine, 3600.0) - NOON).total_seconds()

    def test_as_long_as_was_asked_for(self) -> None:
        self.assertEqual(self.ends(600, used(0, None)), 600)

    def test_no_longer_than_it_may_without_use(self) -> None:
        self.assertEqual(self.ends(7200, used(0, None)), 3600)
        self.assertEqual(self.ends(7200, used(-1000, None)), 2600)

    def test_a_wake_is_use_too(self) -> None:
        self.assertEqual(self.ends(7200, used(-1000, -10)), 3590)
        self.assertEqual(self.ends(7200, used(None, -10)), 3590)

    def test_use_of_later_makes_it_longer(self) -> None:
        self.assertEqual(self.ends(7200, used(3000, 0)), 6600)

    def test_without_any_use_on_record_it_counts_from_its_begin(self) -> None:
        self.assertEqual(self.ends(7200, used(None, None)), 3600)
        self.assertEqual(self.ends(7200, None), 3600)

    def test_whether_it_counts(self) -> None:
        def counts(busy: Busy | None, now: float) -> bool:
            return Leases(MemoryDirectory(Clock()), 3600.0, lambda: now).counts(busy, used(0, 0))

        self.assertTrue(counts(lease(600), NOW + 599))
        self.assertFalse(counts(lease(600), NOW + 600))
        self.assertFalse(counts(None, NOW))


class BusyApiTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.directory = MemoryDirectory(self.clock)
        self.secrets = MachineSecrets("m" * 32)
        proof = MachineProof(self.directory, self.secrets.machine_to_router, self.clock)
        self.api = MachineApi(proof)
        BusyApi(self.directory, 3600.0, self.clock.seconds).join(self.api)
        self.run_now(self.directory.admit(ALICE, "alice@example.org"))
        machine = self.run_now(self.directory.create_machine(ALICE, "local"))
        self.machine = self.run_now(
            self.directory.change(machine, state=MachineState.RUNNING, last_wake_at=NOON)
        )

    def run_now(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def ask(self, method: str, value: object = None, body: bytes | None = None) -> FakeExchange:
        token = self.secrets.machine_to_router(ALICE, 1)
        fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        content = dumps(value).encode() if body is None else body
        exchange = FakeExchange.of(method, f"/machine/v1/{ALICE}/busy", fields, content)
        return exchange.handle(self.api)

    def hold(self, seconds: object = 600, reason: object = "indexing") -> FakeExchange:
        return self.ask("PUT", {"reason": reason, "seconds": seconds})

    def test_a_lease(self) -> None:
        self.assertEqual(
            self.hold().json,
            {
                "reason": "indexing",
                "since": NOON.isoformat(),
                "until": (NOON + timedelta(seconds=600)).isoformat(),
                "seconds": 600,
                "shortened": False,
            },
        )
        self.assertEqual(self.ask("GET").json["busy"]["reason"], "indexing")
        self.assertEqual(self.ask("DELETE").json, {"was_busy": True})
        self.assertEqual(self.ask("GET").json, {"busy": None})
        self.assertEqual(self.ask("DELETE").json, {"was_busy": False})

    def test_it_is_told_if_it_is_not_for_as_long(self) -> None:
        answer = self.hold(7200).json
        self.assertEqual((answer["seconds"], answer["shortened"]), (3600, True))
        self.clock.advance(5000)
        self.assertEqual(self.hold(60).json["seconds"], 0)

    def test_what_nobody_can_mean(self) -> None:
        for seconds in (0, -1, 86401, "soon", None, 1e308, [1]):
            error = self.hold(seconds).error
            assert isinstance(error, BadRequest), seconds
            self.assertIn("seconds", str(error))
            self.clock.advance(1)
        for reason in ("", " ", "x" * 201, 5, None):
            error = self.hold(60, reason).error
            assert isinstance(error, BadRequest), reason
            self.assertIn("reason", str(error))
            self.clock.advance(1)
        for body in (b"", b"[]", b"{", b'{"reason": "x", "seconds": NaN}'):
            self.assertIsInstance(self.ask("PUT", body=body).error, BadRequest)
            self.clock.advance(1)
        self.assertIsInstance(self.ask("PUT", body=b" " * 5000).error, PayloadTooLarge)
        self.clock.advance(1)
        further = {"reason": "x", "seconds": 1, "forever": True}
        self.assertIn("forever", str(self.ask("PUT", further).error))

    def test_a_machine_that_falls_asleep_is_told_so(self) -> None:
        self.run_now(self.directory.change(self.machine, state=MachineState.SUSPENDING))
        error = self.hold().error
        assert isinstance(error, Conflict)
        self.assertEqual(error.reason, "asleep")

    def test_of_a_user_who_may_not_come_in(self) -> None:
        self.directory.put_user(User(ALICE, "alice@example.org", UserState.BLOCKED))
        self.assertIsInstance(self.hold().error, Forbidden)

    def test_a_machine_that_asks_all_the_time_is_put_off(self) -> None:
        for _ in range(BURST):
            self.assertEqual(self.hold().status, 200)
        before = self.directory.calls
        for _ in range(10):
            error = self.hold().error
            assert isinstance(error, TooManyRequests)
            self.assertEqual(error.retry_after, 1.0)
        self.assertEqual(self.directory.calls, before)
        self.clock.advance(1)
        self.assertEqual(self.hold().status, 200)
        self.assertIsInstance(self.hold().error, TooManyRequests)

    def test_an_outage(self) -> None:
        self.hold()
        self.directory.lose()
        for method in ("PUT", "DELETE", "GET"):
            exchange = self.ask(method, {"reason": "x", "seconds": 1})
            self.assertIsInstance(exchange.error, Unavailable)

    def test_another_machine_may_not(self) -> None:
        token = self.secrets.router_to_daemon(ALICE, 1)
        fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        target = f"/machine/v1/{ALICE}/busy"
        exchange = FakeExchange.of("PUT", target, fields, b'{"reason": "x", "seconds": 1}')
        self.assertIsInstance(exchange.handle(self.api).error, Unauthorized)
