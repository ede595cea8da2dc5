"""What is told of a request: in headers, in the log, in the counters."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.metrics import series
from matrix.model import MachineState
from matrix.router.routes import Wake
from matrix.router.story import Story
from matrix.router.trace import new_trace
from tests.router.world import ALICE, TOKENS, World

SECONDS = st.floats(0, 1e4)


def routed(story: Story, now: float) -> None:
    anywhere: Any = None
    story.routed(anywhere, anywhere, False, "an-id", now)


class StoryTests(SynchronousTestCase):
    def test_each_phase_begins_where_the_one_before_ended(self) -> None:
        story = Story()
        story.authenticated(TOKENS[b"alice-token"], started=10.0, now=10.25)
        routed(story, 10.5)
        story.answered(12.0)
        self.assertEqual((story.auth_s, story.route_s, story.upstream_s), (0.25, 0.25, 1.5))
        self.assertEqual((story.wake_s, story.ready_s, story.wake), (None, None, None))

    def test_a_wake_is_told_with_what_it_found(self) -> None:
        story = Story()
        story.authenticated(TOKENS[b"alice-token"], 10.0, 10.001)
        story.woken(Wake(MachineState.SUSPENDED, "request", 0.2, 0.1), 0.412, 10.413)
        routed(story, 10.414)
        self.assertEqual(
            story.answered(10.5),
            b"Server-Timing: auth;dur=1.000, route;dur=1.000, wake;dur=312.0, ready;dur=100.0, "
            b"upstream;dur=86.000\r\nMatrix-Wake: suspended;dur=412\r\n",
        )

    def test_one_who_came_late_waited_for_no_more_than_it_did(self) -> None:
        story = Story()
        story.woken(Wake(MachineState.STOPPED, "request", 5.0, 3.0), 0.5, 1.0)
        self.assertEqual((story.wake_s, story.ready_s), (0.0, 0.5))

    def test_a_machine_that_was_running_was_not_woken(self) -> None:
        for wake in (None, Wake(MachineState.RUNNING, "request", 0.0, 0.0)):
            story = Story()
            story.woken(wake, 0.1, 1.0)
            self.assertIsNone(story.wake)
            self.assertNotIn(b"Matrix-Wake", story.answered(2.0))

    @given(SECONDS, SECONDS, SECONDS, SECONDS)
    def test_the_headers_are_well_formed_whatever_the_times(
        self, auth: float, waited: float, ready: float, upstream: float
    ) -> None:
        story = Story()
        story.authenticated(TOKENS[b"alice-token"], 0.0, auth)
        story.woken(Wake(MachineState.PROVISIONING, "alarm", 1.0, ready), waited, auth + waited)
        routed(story, auth + waited)
        lines = story.answered(auth + waited + upstream)
        self.assertTrue(
            re.fullmatch(
                rb"Server-Timing: (\w+;dur=\d+\.\d+, ){4}upstream;dur=\d+\.\d{3}\r\n"
                rb"Matrix-Wake: provisioning;dur=\d+\r\n",
                lines,
            ),
            lines,
        )


class TraceTests(SynchronousTestCase):
    def test_traces_are_valid_and_differ(self) -> None:
        traces = [new_trace() for _ in range(1000)]
        for trace in traces:
            found = re.fullmatch(rb"traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-00\r\n", trace)
            assert found is not None, trace
            self.assertNotIn(int(found[1], 16), (0,))
            self.assertNotIn(int(found[2], 16), (0,))
        self.assertEqual(len(set(traces)), 1000)


class LedgerTests(SynchronousTestCase):
    """One record for each request, whatever became of it."""

    def setUp(self) -> None:
        self.world = World()

    def count(self, kind: str, status: str) -> float:
        self.world.registry.render()
        return self.world.registry.counter(series.REQUESTS, kind, status).value

    def test_a_request_that_woke_its_machine(self) -> None:
        client = self.world.ask("/upload?a=b", method="PUT", Content_Length="3")
        client.connection.dataReceived(b"abc")
        self.world.let_pass(0.3)
        [record] = self.world.log.records
        self.assertEqual(record.request_id, client.headers["x-request-id"])
        self.assertEqual((record.user_id, record.method), (ALICE, b"PUT"))
        self.assertEqual((record.target, record.status), (b"/upload?a=b", 200))
        self.assertEqual((record.bytes_in, record.bytes_out), (3, 5))
        self.assertEqual((record.peer, record.tls), ("192.0.2.7", "TLSv1.3"))
        self.assertEqual((record.wake_cause, record.close_reason), ("request", None))
        for phase in ("auth_s", "route_s", "wake_s", "ready_s", "upstream_s", "total_s"):
            self.assertGreaterEqual(getattr(record, phase), 0.0, phase)
        self.assertEqual(self.count("proxied", "2xx"), 1)

    def test_a_warm_one_went_through_no_wake(self) -> None:
        self.world.ask()
        self.world.let_pass(0.3)
        self.world.ask("/warm")
        self.world.turn()
        record = self.world.log.records[-1]
        self.assertEqual((record.wake_cause, record.wake_s, record.ready_s), (None, None, None))

    def test_a_refused_one_has_no_user(self) -> None:
        self.world.ask("/secret", token=None)
        [record] = self.world.log.records
        self.assertEqual((record.user_id, record.status), (None, 401))
        self.assertEqual(record.close_reason, "missing")
        self.assertIsNone(record.upstream_s)
        self.assertEqual((self.count("own", "4xx"), self.count("proxied", "4xx")), (1, 0))

    def test_one_that_is_no_http_is_recorded_too(self) -> None:
        client = self.world.client()
        client.connection.dataReceived(b"what is this\r\n\r\n")
        self.assertEqual(client.status, 400)
        [record] = self.world.log.records
        self.assertEqual((record.user_id, record.status, record.method), (None, 400, b""))

    def test_a_client_that_left_is_499(self) -> None:
        self.world.place().mute = True
        client = self.world.ask("/slow")
        client.leave()
        [record] = self.world.log.records
        self.assertEqual((record.status, record.close_reason), (499, "client-gone"))

    def test_a_machines_own_error_is_the_machines(self) -> None:
        self.world.place().answer = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
        self.world.ask()
        self.world.let_pass(0.3)
        self.assertEqual((self.count("proxied", "5xx"), self.count("own", "5xx")), (1, 0))

    def test_bytes_are_counted(self) -> None:
        self.world.ask()
        self.world.let_pass(0.3)
        self.world.registry.render()
        self.assertEqual(self.world.registry.counter(series.BYTES, "client", "out").value, 5)
