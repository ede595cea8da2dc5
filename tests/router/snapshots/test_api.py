"""Operators see snapshots and have them taken; machines learn what they boot from."""

from __future__ import annotations

import json
from typing import Any

from matrix.api import Api
from matrix.errors import Forbidden, NotFound, Unavailable
from matrix.model import UserId
from matrix.router.machine_api import MachineApi
from matrix.router.snapshots.api import SnapshotsApi
from matrix.router.snapshots.report import Done, Failed, Progress
from matrix.router.snapshots.taker import Taker
from matrix.testing.exchange import FakeExchange

from .test_taker import ALICE, BOB, NAME, TakerTestCase


class Waker:
    """Wakes whoever it is told to, unless it cannot."""

    def __init__(self) -> None:
        self.woken: list[tuple[UserId, str]] = []
        self.refusal: Exception | None = None

    async def wake(self, who: UserId, cause: str) -> None:
        self.woken.append((who, cause))
        if self.refusal is not None:
            raise self.refusal


class Everybody:
    """Takes any machine for what it says it is."""

    async def fits(self, who: UserId, given: bytes) -> bool:
        return True


class SnapshotsApiTests(TakerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.waker = Waker()
        self.machine()
        self.now(self.directory.admit(ALICE, "alice@example.org"))

    def api(self, taker: Taker | None) -> Api:
        api = Api(lambda request: None)
        SnapshotsApi(self.directory, self.waker, taker).join(api.add)
        return api

    def ask(self, target: str, method: str = "GET", *, off: bool = False) -> FakeExchange:
        taker = None if off else self.taker
        return FakeExchange.of(method, f"/admin/v1/{target}").handle(self.api(taker))

    def lines(self, exchange: FakeExchange) -> list[Any]:
        return [json.loads(line) for line in exchange.answer.splitlines()]

    def taken(self, outcome: Any = Done(NAME, 10, 100)) -> None:  # noqa: B008 -- frozen
        """Alice has a snapshot, or an attempt at one."""
        self.ask("users/alice/snapshot", "POST")
        self.daemons.of(ALICE).answer(outcome)

    # taking one

    def test_how_one_goes_is_told_line_by_line(self) -> None:
        exchange = self.ask("users/alice/snapshot", "POST")
        self.assertEqual(exchange.header(b"content-type"), b"application/x-ndjson")
        self.assertEqual(self.waker.woken, [(ALICE, "operator")])
        [told] = self.daemons.of(ALICE).told
        told(Progress("backup", 3, 20, 100))
        self.assertEqual(exchange.state, "begun")
        self.daemons.of(ALICE).answer(Done(NAME, 10, 100, partial=True))
        first, second, last = self.lines(exchange)
        self.assertEqual((first["kind"], first["stage"]), ("progress", "wake"))
        self.assertEqual((second["stage"], second["bytes_done"]), ("backup", 20))
        self.assertEqual((last["kind"], last["snapshot"], last["partial"]), ("done", NAME, True))
        self.assertEqual(exchange.state, "ended")

    def test_a_failure_is_the_last_line(self) -> None:
        exchange = self.ask("users/alice/snapshot", "POST")
        self.daemons.of(ALICE).answer(Failed("no space left"))
        self.assertEqual(self.lines(exchange)[-1]["reason"], "no space left")
        self.waker.refusal = Unavailable("The machine could not be started.")
        exchange = self.ask("users/alice/snapshot", "POST")
        self.assertEqual(self.lines(exchange)[-1]["reason"], "The machine could not be started.")

    def test_a_sleeping_machine_whose_data_are_safe_is_let_sleep(self) -> None:
        self.let_pass(5)
        resting = self.rest(self.now(self.directory.machine(ALICE)))
        self.daemons.of(ALICE).answer(Done(NAME))
        self.successResultOf(resting)
        machine = self.now(self.directory.machine(ALICE))
        self.now(self.directory.change(machine, state=type(machine.state)("suspended")))
        exchange = self.ask("users/alice/snapshot", "POST")
        self.assertEqual(self.lines(exchange), [{"kind": "unchanged"}])
        self.assertEqual(self.waker.woken, [])

    def test_who_leaves_is_told_nothing_more(self) -> None:
        exchange = self.ask("users/alice/snapshot", "POST")
        before = exchange.answer
        exchange.gone = True
        self.daemons.of(ALICE).told[0](Progress("backup"))
        self.assertEqual(exchange.answer, before)

    def test_refusals(self) -> None:
        self.assertIsInstance(self.ask("users/nobody/snapshot", "POST").error, NotFound)
        self.now(self.directory.admit(BOB, "bob@example.org"))
        self.assertIsInstance(self.ask("users/bob/snapshot", "POST").error, NotFound)
        self.assertIsInstance(self.ask("users/alice/snapshot", "POST", off=True).error, Forbidden)
        self.directory.lose()
        self.assertIsInstance(self.ask("users/alice/snapshot", "POST").error, Unavailable)

    # what there is

    def test_a_users(self) -> None:
        self.taken()
        self.taken(Failed("no space left"))
        found = self.ask("users/alice/snapshots").json
        self.assertEqual((found["email"], found["on"]), ("alice@example.org", True))
        failed, done = found["snapshots"]
        self.assertEqual((failed["status"], failed["reason"]), ("failed", "no space left"))
        self.assertEqual((done["snapshot"], done["bytes_total"], done["seconds"]), (NAME, 100, 0))
        self.assertEqual(done["cause"], "operator")
        self.assertEqual(len(self.ask("users/alice/snapshots?limit=1").json["snapshots"]), 1)

    def test_everybodys(self) -> None:
        self.assertEqual(self.ask("snapshots", off=True).json, {"on": False, "users": []})
        self.taken()
        self.taken(Failed("no space left"))
        [one] = self.ask("snapshots").json["users"]
        self.assertEqual((one["email"], one["failures"]), ("alice@example.org", 1))
        self.assertEqual((one["reason"], one["newest"]["snapshot"]), ("no space left", NAME))

    # machines

    def restore(self) -> FakeExchange:
        api = MachineApi(Everybody())
        SnapshotsApi(self.directory, self.waker, self.taker).join_machines(api)
        shown = {"authorization": "Bearer token"}
        return FakeExchange.of("GET", f"/machine/v1/{ALICE}/restore", shown).handle(api)

    def test_a_machine_without_any_begins_empty(self) -> None:
        self.assertEqual(self.restore().json, {"snapshot": None, "at": None})

    def test_a_machine_begins_with_the_newest_good_one(self) -> None:
        self.taken()
        self.taken(Failed("no space left"))
        found = self.restore().json
        self.assertEqual(found["snapshot"], NAME)
        self.assertTrue(found["at"].startswith("2026-11-18"))

    def test_or_with_the_one_that_an_operator_wants(self) -> None:
        self.taken()
        self.now(self.directory.upkeep.want(ALICE, "f" * 64))
        self.assertEqual(self.restore().json["snapshot"], "f" * 64)

    def test_while_it_cannot_be_said_no_machine_begins_empty(self) -> None:
        self.directory.lose()
        self.assertIsInstance(self.restore().error, Unavailable)
