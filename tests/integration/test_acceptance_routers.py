"""Two routers on one PostgreSQL are one service: either serves every user, on the same machine."""

from __future__ import annotations

import signal
from unittest import TestCase

from matrix.testing.supplied import SuppliedMatrix, Supply


class TwoRoutersTests(TestCase):
    def setUp(self) -> None:
        supply = Supply()
        self.addCleanup(supply.close)
        self.first, self.second = SuppliedMatrix(supply), SuppliedMatrix(supply)
        for router in (self.first, self.second):
            self.addCleanup(router.close)
            router.start()

    def test_either_serves_a_user_on_the_same_machine(self) -> None:
        token = self.first.token("alice")
        for router in (self.first, self.second, self.first):
            answer = router.door.ask("GET", "/", token)
            self.assertEqual(answer.status, 200, answer)
        self.assertEqual(len(self.first.events("alice", "wake")), 1)
        self.assertNotEqual(self.first.url, self.second.url)
        self.assertEqual(self.first.machine("alice"), self.second.machine("alice"))
        self.assertEqual(self.second.stop(), -signal.SIGTERM)
        self.assertEqual(self.first.door.ask("GET", "/", token).status, 200)
        self.second.start()
        self.assertEqual(self.second.door.ask("GET", "/", token).status, 200)
