"""An operator has machines made for users who have not come yet."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.api import Api
from matrix.errors import Blocked, NotFound, Unavailable
from matrix.machines import ProviderError
from matrix.model import MachineState, User, UserState
from matrix.router.provision_api import ProvisionApi
from matrix.testing.exchange import FakeExchange
from tests.router.world import ALICE, World, run


class ProvisionApiTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.api = Api()
        ProvisionApi(self.world.fleet, self.world.clock).join(self.api.add)

    def ask(self, user: str = ALICE) -> FakeExchange:
        target = f"/admin/v1/users/{user}/provision"
        exchange = FakeExchange.of("POST", target, {}).handle(self.api)
        self.world.let_pass(0.5)
        return exchange

    def made(self, user: str = ALICE) -> dict[str, Any]:
        answer = self.ask(user).json
        assert isinstance(answer, dict)
        return answer

    def test_a_machine_is_made_and_not_started(self) -> None:
        found = self.made()
        self.assertEqual((found["made"], found["state"]), (True, "stopped"))
        self.assertEqual(found["machine_id"], "memory-1")
        row = self.world.row()
        self.assertEqual((row.machine_id, row.lease_owner), ("memory-1", None))
        self.assertEqual(self.world.asked("start"), 0)
        self.assertEqual(self.world.events(), [("provisioned", "operator")])

    def test_it_wakes_as_any_other(self) -> None:
        self.made()
        self.world.want()
        self.world.let_pass(1.0)
        self.assertEqual(self.world.asked("provision"), 1)

    def test_one_that_is_there_stays_as_it_is(self) -> None:
        self.world.awake()
        found = self.made()
        self.assertEqual((found["made"], found["state"]), (False, "running"))

    def test_a_lost_one_is_made_again(self) -> None:
        self.world.asleep()
        row = self.world.row()
        run(self.world.store.change(row, state=MachineState.LOST))
        del self.world.fleet_twin.machines[ALICE]
        self.assertEqual(self.made()["machine_id"], "memory-2")

    def test_a_failure_is_told_and_can_be_repeated(self) -> None:
        self.world.provider_twin.fail("provision", ProviderError("no room", retry_after=30.0))
        error = self.ask().error
        assert isinstance(error, Unavailable)
        self.assertEqual(error.retry_after, 30.0)
        self.assertEqual(self.world.row().state_reason, "no room")
        self.assertTrue(self.made()["made"])

    def test_one_that_is_being_made_is_left_to_who_makes_it(self) -> None:
        self.world.provider_twin.delays["provision"] = 5.0
        self.world.want()
        self.world.let_pass(0.1)
        error = self.ask().error
        assert isinstance(error, Unavailable)
        self.assertEqual(error.reason, "lease")

    def test_whom_nobody_knows(self) -> None:
        self.assertIsInstance(self.ask("carol").error, NotFound)

    def test_a_blocked_user_gets_none(self) -> None:
        self.world.put_user(User(ALICE, "alice@example.org", UserState.BLOCKED))
        self.assertIsInstance(self.ask().error, Blocked)
        self.assertEqual(self.world.asked("provision"), 0)
