"""Two routers while PostgreSQL is away, and while Fly is: who is awake notices nothing of it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any, ClassVar

from matrix.directory._cluster import wait_dead
from matrix.testing import postgres
from matrix.testing.fly.running import RunningEmulator
from matrix.testing.running import RunningMatrix
from matrix.testing.running_case import MatrixCase
from matrix.testing.supplied import SuppliedMatrix, Supply
from matrix.testing.wire import Answer

TIMINGS = {"unseen": 0.1, "pull": 0.1, "start": 0.1, "resume": 0.1, "suspend": 0.1, "volume": 0.1}
DEAD_SECONDS = 20.0
BACK_SECONDS = 30.0
"""For all to be as before, on a busy host."""


class OutageTests(MatrixCase):
    """Alice is awake at the first router, bob sleeps."""

    fly: ClassVar[RunningEmulator]
    other: Any = None

    @classmethod
    def setUpClass(cls) -> None:
        cls.fly = RunningEmulator("tiny", **TIMINGS)
        cls.addClassCleanup(cls.fly.close)
        cls.fly.start()
        supply = Supply()
        cls.addClassCleanup(supply.close)
        made = []
        for _ in range(2):
            router = SuppliedMatrix(
                supply, provider="fly", fly_api=cls.fly.url, fly_token=cls.fly.token,
                fly_app="users", fly_regions="fra", fly_image="registry.example/daemon:1",
                wake_timeout=3,
            )  # fmt: skip
            cls.addClassCleanup(router.close)
            made.append(router.start())
        cls.matrix, cls.other = made

    def setUp(self) -> None:
        for user in ("alice", "bob"):
            self.assertEqual(self.get(user).status, 200)
        self.matrix.suspend("bob")
        self.assertEqual(self.row("bob")["state"], "suspended")

    def get(self, user: str, router: RunningMatrix | None = None) -> Answer:
        """A request by way of a router, the first by default."""
        router = router or self.matrix
        return router.door.ask("GET", "/", router.token(user))

    def until_served(self, user: str, router: RunningMatrix | None = None) -> None:
        """Ask as often as it takes, minding what is answered."""

        def is_served() -> bool:
            answer = self.get(user, router)
            if answer.status != 200:
                self.refused(answer)
            return answer.status == 200

        self.matrix.until(is_served, BACK_SECONDS, f"{user} is served again")

    def refused(self, answer: Answer) -> None:
        """Somebody is told properly that they must wait."""
        self.assertEqual(answer.status, 503, answer.body)
        self.assertGreaterEqual(int(answer.headers.get("retry-after") or 0), 1)
        self.assertEqual(answer.headers.get("content-type"), "application/problem+json")

    def one_each(self) -> None:
        """Nothing was made twice."""
        names = [each["name"] for each in self.fly.ask("GET", "/v1/apps/users/machines")]
        self.assertEqual(len(names), len(set(names)))

    def test_postgresql_is_away_for_a_while(self) -> None:
        self.assertEqual(self.get("carol").status, 200)  # of whom the other router knows nothing
        server = postgres.server()
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGINT)
        try:
            self.assertTrue(wait_dead(server.process, DEAD_SECONDS))
            self.matrix.until(
                lambda: self.matrix.metric("matrix_directory_stale_seconds") > 0,
                10,
                "it is noticed",
            )
            for _ in range(50):
                answer = self.get("alice")
                self.assertEqual(answer.status, 200)
                self.assertEqual(answer.headers.get("matrix-degraded"), "directory")
            self.refused(self.get("bob"))
            self.refused(self.get("carol", self.other))
        finally:
            server.restart()
        for router in (self.matrix, self.other):
            for user in ("alice", "bob"):
                self.until_served(user, router)
        self.matrix.until(
            lambda: self.get("alice").headers.get("matrix-degraded") is None,
            10,
            "all is well again",
        )
        self.one_each()

    def test_fly_is_away_for_a_while(self) -> None:
        self.fly.kill()
        try:
            for _ in range(50):
                self.assertEqual(self.get("alice").status, 200)
            began = time.monotonic()
            self.refused(self.get("bob"))
            self.assertLess(time.monotonic() - began, 6)
            self.assertEqual(self.get("alice", self.other).status, 200)
        finally:
            self.fly.start()
        self.until_served("bob")
        self.one_each()

    def test_what_a_dead_router_leaves_is_served_by_the_other(self) -> None:
        """A box that dies loses nothing but its open connections."""
        self.assertEqual(self.get("alice", self.other).status, 200)
        self.matrix.kill()
        try:
            for user in ("alice", "bob"):
                self.until_served(user, self.other)
        finally:
            with suppress(ProcessLookupError):
                self.matrix.start()
        self.until_served("alice")
        self.one_each()
