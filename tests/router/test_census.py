"""The census: what a process holds is counted, and what it let go of is not."""

import asyncio
import json
import socket
from math import inf
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.net import Wheel
from matrix.router.census import census


class Kept:
    """What may leak."""

    def __init__(self) -> None:
        self.itself = self
        self.deadline = inf
        self.wheel_due = inf

    def expired(self) -> None:
        """Called by the wheel."""


NAME = f"{Kept.__module__}.Kept"


class CensusTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wheel = Wheel(self.clock)
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)

    def count(self) -> dict[str, Any]:
        return census(self.clock, self.loop, self.wheel)

    def test_objects_by_class_without_garbage(self) -> None:
        kept = [Kept(), Kept()]
        Kept()  # refers to itself, so that only the collector ends it
        self.assertEqual(self.count()["instances"][NAME], len(kept))

    def test_what_is_to_happen(self) -> None:
        before = self.count()
        self.clock.callLater(1, lambda: None)
        self.wheel.arm(Kept(), 5)

        async def forever() -> None:
            await asyncio.sleep(inf)

        task = self.loop.create_task(forever())
        after = self.count()
        told = ("delayed_calls", "deadlines", "tasks")
        self.assertEqual([after[name] - before[name] for name in told], [1, 1, 1])
        task.cancel()
        self.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        self.assertEqual(self.count()["tasks"], before["tasks"])

    def test_open_files_by_kind(self) -> None:
        before = self.count()["files"]
        with socket.socket(), open("/dev/null") as null:
            after = self.count()["files"]
            self.assertEqual(after["socket"], before.get("socket", 0) + 1)
            self.assertEqual(after[null.name], before.get(null.name, 0) + 1)
        self.assertEqual(self.count()["files"], before)

    def test_memory_of_this_process(self) -> None:
        counts = self.count()
        with open("/proc/self/status") as status:
            (line,) = (line for line in status if line.startswith("VmRSS"))
        told = counts["memory_bytes"] / 2**20
        self.assertAlmostEqual(told, int(line.split()[1]) / 1024, delta=20)
        self.assertGreater(counts["threads"], 0)

    def test_can_be_told_in_json(self) -> None:
        self.assertEqual(json.loads(json.dumps(self.count()))["tasks"], 0)
