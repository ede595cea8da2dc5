"""Operators ask over the admin API who is awake and why; metrics tell of the whole fleet."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.api import Api
from matrix.directory import DirectoryUnavailable, MemoryDirectory
from matrix.errors import BadRequest, NotFound, Unavailable
from matrix.metrics import Registry, series
from matrix.model import MachineState, UserId
from matrix.router.awake import AwakeApi, AwakeGauges
from matrix.testing.exchange import FakeExchange

ALICE = UserId("0a1b2c3d-0000-4000-8000-00000000000a")
BOB = UserId("0a1b2c3d-0000-4000-8000-00000000000b")
NOW = 1_795_000_000.0
"""2026-11-18T11:06:40Z"""


class AwakeCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.directory = MemoryDirectory(self.clock)
        self.run_now(self.directory.admit(ALICE, "alice@example.org"))
        self.run_now(self.directory.admit(BOB, ""))

    def run_now(self, coroutine: object) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))  # type: ignore[arg-type]

    def enter(self, user_id: UserId, state: MachineState, cause: str = "request") -> None:
        machine = self.run_now(self.directory.create_machine(user_id, "local"))
        self.run_now(self.directory.change(machine, state=state, wake_cause=cause))


class AwakeApiTests(AwakeCase):
    def setUp(self) -> None:
        super().setUp()
        self.api = Api(lambda request: None)
        AwakeApi(self.directory).join(self.api)

    def ask(self, target: str) -> FakeExchange:
        return FakeExchange.of("GET", f"/admin/v1/{target}", {}).handle(self.api)

    def test_who_is_awake_and_what_for(self) -> None:
        self.enter(ALICE, MachineState.STARTING, "alarm")
        self.clock.advance(10.0)
        self.enter(BOB, MachineState.STARTING)
        self.clock.advance(5.0)
        self.enter(BOB, MachineState.SUSPENDED)
        found: Any = self.ask("awake?days=2&limit=5").json
        self.assertEqual(found["days"], 2)
        alice, bob = found["users"]
        expected = {
            "user": ALICE,
            "email": "alice@example.org",
            "seconds": 15.0,
            "by_cause": {"alarm": {"seconds": 15.0, "wakes": 1}},
            "awake_since": "2026-11-18T11:06:40+00:00",
            "awake_cause": "alarm",
            "last_active_at": None,
        }
        self.assertEqual(alice, expected)
        self.assertEqual((bob["user"], bob["seconds"], bob["awake_since"]), (BOB, 5.0, None))
        fleet = {"alarm": {"machines": 1, "seconds": 15.0}}
        self.assertEqual(found["fleet"], {**fleet, "request": {"machines": 0, "seconds": 5.0}})
        self.assertEqual(len(self.ask("awake?limit=1").json["users"]), 1)

    def test_one_user(self) -> None:
        found: Any = self.ask(f"users/{ALICE}/awake").json
        self.assertEqual((found["seconds"], found["by_cause"]), (0, {}))
        self.assertEqual((found["email"], found["days"]), ("alice@example.org", 7))
        self.enter(ALICE, MachineState.STARTING)
        self.clock.advance(1.5)
        self.assertEqual(self.ask(f"users/{ALICE}/awake").json["seconds"], 1.5)

    def test_what_cannot_be_asked(self) -> None:
        for target, kind in (
            ("awake?days=0", BadRequest),
            ("awake?days=101", BadRequest),
            ("awake?days=many", BadRequest),
            ("awake?limit=0", BadRequest),
            ("users/nobody/awake", NotFound),
        ):
            self.assertIsInstance(self.ask(target).error, kind, target)

    def test_an_outage_is_told(self) -> None:
        self.directory.lose()
        for target in ("awake", f"users/{ALICE}/awake"):
            self.assertIsInstance(self.ask(target).error, Unavailable)


class AwakeGaugesTests(AwakeCase):
    def test_the_fleet_as_of_the_last_look(self) -> None:
        registry = Registry(series.TABLE)
        gauges = AwakeGauges(self.directory, registry)
        self.run_now(gauges.refresh())
        self.enter(ALICE, MachineState.STARTING)
        self.enter(BOB, MachineState.STARTING)
        self.clock.advance(8.0)
        self.enter(BOB, MachineState.SUSPENDED)
        self.run_now(gauges.refresh())
        self.assertEqual(registry.number(series.AWAKE_MACHINES, "request"), 1.0)
        self.assertEqual(registry.counter(series.AWAKE_SECONDS, "request").current(), 16.0)
        self.directory.lose()
        self.failureResultOf(Deferred.fromCoroutine(gauges.refresh()), DirectoryUnavailable)
        self.assertEqual(registry.number(series.AWAKE_MACHINES, "request"), 1.0)
