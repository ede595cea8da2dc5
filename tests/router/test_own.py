"""The paths below /-/: health, and how a wake goes on."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from matrix.machines import ProviderError
from matrix.model import MachineState, User, UserState
from matrix.router.own import _nobody
from tests.router.world import ALICE, Client, World, run


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def test_it_lives(self) -> None:
        client = self.world.ask("/-/healthz", token=None)
        self.assertEqual((client.status, json.loads(client.body)), (200, {"status": "ok"}))
        self.assertEqual(client.headers["cache-control"], "no-store")

    def test_it_is_ready(self) -> None:
        client = self.world.ask("/-/readyz", token=None)
        self.assertEqual((client.status, json.loads(client.body)), (200, {"status": "ready"}))

    def test_it_says_what_it_is_not_ready_for(self) -> None:
        self.world.missing = "The directory cannot be reached."
        client = self.world.ask("/-/readyz", token=None)
        self.assertEqual(client.status, 503)
        self.assertEqual(client.headers["retry-after"], "1")
        self.assertEqual(json.loads(client.body)["detail"], "The directory cannot be reached.")
        self.assertEqual(
            self.world.ask("/-/healthz", token=None).status, 200, "it lives all the same"
        )

    def test_a_token_that_is_no_good_does_not_matter(self) -> None:
        self.assertEqual(self.world.ask("/-/healthz", token="forged").status, 200)

    def test_other_methods_are_refused(self) -> None:
        client = self.world.ask("/-/healthz", method="POST", Content_Length="0")
        self.assertEqual(client.status, 405)
        self.assertIn("GET", client.headers["allow"])


class IdentityTests(SynchronousTestCase):
    def test_nobody_is_signed_in_until_the_front_says_how(self) -> None:
        [error] = run(_nobody(None))  # type: ignore[arg-type]
        self.assertEqual((error.status, error.reason), (401, "missing"))


def events_of(client: Client) -> list[tuple[str, Any]]:
    """Names and contents of the server-sent events so far."""
    text = client.body.decode()
    found = re.findall(r"event: (\w+)\ndata: ([^\n]*)\n\n", text)
    return [(name, json.loads(data)) for name, data in found]


class WakeEventsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.provider_twin.delays.update(provision=1.0, start=1.0)
        self.world.directory.step = lambda name, when: deferLater(
            self.world.clock, 0.01, lambda: None
        )

    def listen(self, **request: Any) -> Client:
        return self.world.ask("/-/wake/events", **request)

    def states(self, client: Client) -> list[str]:
        """What was told, each once."""
        told: list[str] = []
        for name, content in events_of(client):
            state = content["state"] if name == "progress" else name
            if told[-1:] != [state]:
                told.append(state)
        return told

    def test_each_step_is_told_in_order(self) -> None:
        self.world.place().deaf = True
        client = self.listen()
        self.world.let_pass(3.0)
        self.world.place().deaf = False
        self.world.let_pass(1.0)
        self.assertEqual(client.status, 200)
        self.assertEqual(client.headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertEqual(
            self.states(client), ["queued", "provisioning", "starting", "waiting", "ready"]
        )
        self.assertTrue(client.body.endswith(b"0\r\n\r\n"), "a proper end")

    def test_time_goes_on_while_nothing_new_happens(self) -> None:
        client = self.listen()
        self.world.let_pass(0.99, step=0.01)
        elapsed = [content["elapsed_ms"] for name, content in events_of(client)]
        self.assertGreaterEqual(len(elapsed), 3)
        self.assertEqual(elapsed, sorted(elapsed))
        self.assertApproximates(elapsed[-1], 500, 60)

    def test_what_wakes_take_is_told_once_it_is_known(self) -> None:
        client = self.listen()
        self.world.let_pass(3.0)
        self.assertNotIn("estimate_ms", events_of(client)[0][1])
        self.world.directory.step = None
        self.world.asleep()
        client = self.listen()
        self.world.let_pass(0.1)
        self.assertGreater(events_of(client)[0][1]["estimate_ms"], 1000)

    def test_a_failure_is_told_and_ends_it(self) -> None:
        self.world.provider_twin.fail("start", ProviderError("secret", retry_after=4.0))
        client = self.listen()
        self.world.let_pass(4.0)
        name, content = events_of(client)[-1]
        self.assertEqual(name, "failed")
        self.assertEqual(self.states(client)[-2:], ["starting", "failed"])
        self.assertEqual(content["detail"], "The machine could not be started.")
        self.assertEqual(content["retry_after"], 4.0)
        self.assertNotIn(b"secret", client.body)
        self.assertTrue(client.body.endswith(b"0\r\n\r\n"))

    def test_a_blocked_user_is_told_so(self) -> None:
        self.world.put_user(User(ALICE, "alice@example.org", UserState.BLOCKED))
        client = self.listen()
        self.world.let_pass(1.0)
        self.assertEqual(events_of(client)[-1][1]["title"], "This account is blocked")
        self.assertEqual(self.world.provider_twin.calls, [])

    def test_a_machine_that_is_awake_is_ready_at_once(self) -> None:
        self.world.let_pass(0.1)
        self.world.want()
        self.world.let_pass(3.0)
        client = self.listen()
        self.world.turn()
        self.assertEqual(events_of(client), [("ready", {})])

    def test_it_wakes_a_machine_that_sleeps(self) -> None:
        self.listen()
        self.world.let_pass(3.0)
        self.assertEqual(self.world.real(), MachineState.RUNNING)
        self.assertEqual(self.world.events(), [("wake", "navigation")])

    def test_a_page_that_is_gone_waits_no_longer(self) -> None:
        client = self.listen()
        self.world.let_pass(0.3)
        self.assertEqual(len(self.world.route().waiters), 1)
        client.leave()
        self.world.let_pass(0.6)
        self.assertEqual(self.world.route().waiters, {})
        self.assertEqual(self.world.route().listeners, {})
        self.world.let_pass(3.0)
        self.assertEqual(self.world.real(), MachineState.RUNNING, "the attempt went on")

    def test_many_pages_hear_of_one_wake(self) -> None:
        clients = [self.listen() for _ in range(20)]
        self.world.let_pass(4.0)
        self.assertEqual([events_of(client)[-1] for client in clients], [("ready", {})] * 20)
        self.assertEqual(self.world.asked("start"), 1)
        self.assertEqual(self.world.route().listeners, {})

    def test_nobody_hears_of_others_machines(self) -> None:
        client = self.listen(token=None)
        self.assertEqual(client.status, 401)
        self.assertEqual(self.world.provider_twin.calls, [])
