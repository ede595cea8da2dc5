"""Whatever happens in whatever order: everybody is answered, and there is one machine."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from matrix.machines import ProviderError
from matrix.metrics import series
from matrix.model import MachineState
from matrix.router.reconcile import Reconciler
from tests.router.world import ALICE, Client, World, run

OPERATIONS = (
    "ask", "ask", "navigate", "prefetch", "leave", "rest", "operator suspends", "machine dies",
    "machine goes deaf", "machine hears", "directory goes", "directory is back",
    "start fails", "suspend fails", "provision fails", "reconcile", "sweep",
)  # fmt: skip
PAUSES = (0.0, 0.005, 0.02, 0.1, 0.5)
"""Seconds that pass between two operations: shorter and longer than each step takes."""

STEPS = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(PAUSES)), max_size=25)


class Chaos:
    """Does one thing after the other to one user's machine."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world = world or World()
        self.clients: list[Client] = []
        self.left: list[Client] = []
        world.directory.step = self._slow
        world.provider.step = self._slow
        self.reconciler = Reconciler(
            world.fleet, world.waker, world.routes, world.registry, idle=10.0
        )

    def _slow(self, name: str, when: str) -> Any:
        return deferLater(self.world.clock, 0.01, lambda: None) if when == "before" else None

    def do(self, what: str) -> None:
        world = self.world
        if what in ("ask", "navigate", "prefetch"):
            more = {"navigate": {"Accept": "text/html"}, "prefetch": {"Purpose": "prefetch"}}
            self.clients.append(world.ask(f"/{len(self.clients)}", **more.get(what, {})))
        elif what == "leave" and self.clients:
            client = self.clients.pop()
            client.leave()
            self.left.append(client)
        elif what == "rest":
            world.route().machine.rest("idle")
        elif what == "operator suspends":
            run(world.waker.suspend(ALICE, "operator"))
        elif what == "machine dies" and ALICE in world.fleet_twin.machines:
            self.die()
        elif what.startswith("machine"):
            world.place().deaf = what == "machine goes deaf"
        elif what == "directory goes":
            world.store.lose()
        elif what == "directory is back":
            world.store.recover()
        elif what.endswith("fails"):
            world.provider_twin.fail(what.split()[0], ProviderError("chance"))
        elif what == "reconcile":
            run(self.reconciler.run())
        elif what == "sweep":
            run(world.idle.sweep())

    def die(self) -> None:
        """The machine's processes end, its connections with them."""
        self.world.fleet_twin.die(ALICE)
        for upstream in self.world.place().open:
            if not upstream.transport.disconnecting:
                upstream.transport.disconnecting = True
                upstream.connectionLost()

    def calm(self) -> None:
        """Everything works again, and time passes."""
        self.world.place().deaf = False
        self.world.store.recover()
        self.world.provider_twin._failures.clear()
        self.world.let_pass(2.0, step=0.02)
        self.world.let_pass(120.0, step=0.5)

    def everybody_is_answered(self, test: SynchronousTestCase) -> None:
        """Everybody was, and whoever comes now is too."""
        world = self.world
        for client in self.clients:
            if not client.transport.aborted:  # an answer that was cut short with its machine
                test.assertIn(client.status, (200, 502, 503), client.transport.data)
        test.assertEqual(world.registry.gauge(series.HELD_REQUESTS).value, 0)
        test.assertEqual(world.route().waiters, {})
        test.assertIn(world.route().phase, ("awake", "resting"))
        client = world.ask("/afterwards")
        world.let_pass(2.0, step=0.02)
        if client.status == 503:  # what it was believed to be turned out wrong just now
            client = world.ask("/afterwards")
            world.let_pass(2.0, step=0.02)
        test.assertEqual(client.status, 200, client.transport.data)
        test.assertEqual(world.row().state, MachineState.RUNNING)
        test.assertEqual(world.real(), MachineState.RUNNING)
        backend = world.route().backend
        assert backend is not None
        test.assertEqual((backend.requests, backend.closed), (0, False))


class ChaosTests(SynchronousTestCase):
    @settings(max_examples=100, deadline=None)
    @given(STEPS)
    def test_everybody_is_answered_and_the_next_request_served(
        self, steps: list[tuple[str, float]]
    ) -> None:
        chaos = Chaos()
        world = chaos.world
        for what, pause in steps:
            chaos.do(what)
            if pause:
                world.let_pass(pause, step=min(pause, 0.02))
            else:
                world.turn()
        chaos.calm()
        chaos.everybody_is_answered(self)
        self.assertEqual(world.fleet_twin.made, 1)
        self.assertEqual(self.flushLoggedErrors(), [])
        world.route().machine.rest("idle")
        world.let_pass(1.0, step=0.02)
        if world.real() is not MachineState.SUSPENDED:  # the row had changed unheard
            world.route().machine.rest("idle")
            world.let_pass(1.0, step=0.02)
        self.assertEqual(world.real(), MachineState.SUSPENDED)
        self.assertEqual(world.row().state, MachineState.SUSPENDED)
