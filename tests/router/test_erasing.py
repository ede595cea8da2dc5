"""A deleted user's machine goes, whatever state it is in and wherever we were killed before."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.machines import ProviderError
from matrix.model import MachineState, UserState
from matrix.router.erasing import destroy_machine
from tests.router.world import ALICE, World


class ErasingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def destroy(self, world: World | None = None) -> Any:
        fleet: Any = (world or self.world).fleet
        return Deferred.fromCoroutine(destroy_machine(fleet, ALICE))

    def run_now(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def deleted(self) -> None:
        """Alice's machine runs, and she is deleted; the router puts it away."""
        self.world.awake()
        self.run_now(self.world.store.set_user_state(ALICE, UserState.DELETED))
        self.world.let_pass(1.0)

    def test_there_is_none(self) -> None:
        self.assertTrue(self.successResultOf(self.destroy()))
        self.assertEqual(self.world.asked("destroy"), 0)

    def test_it_goes_and_the_row_says_so(self) -> None:
        self.deleted()
        self.assertTrue(self.successResultOf(self.destroy()))
        self.assertIsNone(self.world.real())
        self.assertIs(self.world.row().state, MachineState.DESTROYED)
        self.assertIn(("destroyed", "deleted"), self.world.events())
        self.assertTrue(self.successResultOf(self.destroy()), "once is enough")
        self.assertEqual(self.world.asked("destroy"), 1)

    def test_a_provider_in_trouble_is_asked_again(self) -> None:
        self.deleted()
        self.world.provider_twin.fail("destroy", ProviderError("not now"))
        self.failureResultOf(self.destroy(), ProviderError)
        self.assertIs(self.world.row().state, MachineState.DESTROYING)
        self.assertTrue(self.successResultOf(self.destroy()))
        self.assertIs(self.world.row().state, MachineState.DESTROYED)

    def test_what_another_router_has_in_hand_is_left_to_it(self) -> None:
        self.deleted()
        fleet: Any = self.world.fleet
        self.run_now(self.world.store.change(self.world.row(), **fleet.claim()))
        other = World(owner="router:2", within=self.world)
        self.assertFalse(self.successResultOf(self.destroy(other)))
        self.assertEqual(other.asked("destroy"), 0)
