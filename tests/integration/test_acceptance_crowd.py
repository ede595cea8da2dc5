"""Many at once: a thousand requests for one machine, and fifty machines wanted together."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections import Counter
from pathlib import Path

import matrix.testing
from matrix.net import allow_many_files
from matrix.testing.running import state_of
from matrix.testing.running_case import MatrixCase
from matrix.testing.wire import Answer, Door, run

REQUESTS = 1000
USERS = int(os.environ.get("ACCEPTANCE_USERS", "50"))
CONTENT = b"the same for everybody\n" * 10

PROGRAM = Path(matrix.testing.__path__[0], "machine_program.py")
LIGHT = shlex.join([sys.executable, "-IS", str(PROGRAM), "{socket}"])
"""A machine that takes a tenth of the daemon's time and memory."""


async def at_once(door: Door, tokens: list[str], path: str) -> tuple[list[Answer], list[float]]:
    """
    One request for each token, each on a connection that is open already, all sent together.

    @return: the answers, and the seconds that each took.
    """
    wires = []
    for first in range(0, len(tokens), 50):  # a listener's backlog is not what is tested here
        wires += await asyncio.gather(*map(door.open, tokens[first : first + 50]))
    began = time.perf_counter()

    async def one(number: int) -> tuple[Answer, float]:
        answer = await wires[number].request("GET", path)
        return answer, time.perf_counter() - began

    try:
        results = await asyncio.gather(*map(one, range(len(wires))))
    finally:
        for wire in wires:
            wire.close()
    return [answer for answer, _ in results], sorted(seconds for _, seconds in results)


class ThousandTests(MatrixCase):
    """A thousand requests for a user whose machine is not awake: one attempt answers all."""

    @classmethod
    def setUpClass(cls) -> None:
        allow_many_files()
        super().setUpClass()

    def burst(self, path: str) -> list[Answer]:
        # One session, as a browser has it: its token is verified once.
        tokens = [self.matrix.token("alice")] * REQUESTS
        answers, seconds = run(at_once(self.matrix.door, tokens, path), 60)
        self.tell(
            f"{REQUESTS} requests at once",
            wake=answers[0].headers.get("matrix-wake"),
            held=self.held(answers),
            median_s=f"{seconds[len(seconds) // 2]:.2f}",
            last_s=f"{seconds[-1]:.2f}",
        )
        return answers

    def held(self, answers: list[Answer]) -> int:
        """How many of them waited for the wake."""
        return sum("matrix-wake" in answer.headers for answer in answers)

    def test_exactly_one_start(self) -> None:
        matrix = self.matrix
        with self.subTest("of a machine that is not even made"):
            answers = self.burst("/v1/files/")
            self.assertEqual(Counter(answer.status for answer in answers), {200: REQUESTS})
            self.assertGreater(self.held(answers), 1)
            self.assertEqual(len(matrix.events("alice", "wake")), 1, matrix.events("alice"))
            self.assertEqual(matrix.metric("matrix_wakes_total"), 1)
            self.assertEqual(len(matrix.machine_processes("alice")), 1)

        boot = self.row("alice")["boot_id"]
        self.assertEqual(self.ask("alice", "PUT", "/v1/files/a.txt", CONTENT).status, 201)
        matrix.suspend("alice")
        self.assertEqual(self.states("alice"), {"T"})
        with self.subTest("of a machine that sleeps"):
            answers = self.burst("/v1/files/a.txt")
            told = Counter((answer.status, answer.body) for answer in answers)
            self.assertEqual(told, {(200, CONTENT): REQUESTS})
            self.assertGreater(self.held(answers), 1)
            self.assertEqual(len(matrix.events("alice", "wake")), 2, matrix.events("alice"))
            self.assertEqual(matrix.metric("matrix_wakes_total", was="suspended"), 1)
            self.assertEqual(self.row("alice")["boot_id"], boot)

        matrix.kill_machine("alice")
        with self.subTest("of a machine that was killed"):
            answers = self.burst("/v1/files/a.txt")
            told = Counter((answer.status, answer.body) for answer in answers)
            self.assertEqual(told, {(200, CONTENT): REQUESTS})
            self.assertEqual(len(matrix.events("alice", "wake")), 3, matrix.events("alice"))
            self.assertEqual(len(matrix.machine_processes("alice")), 1)
        self.assertEqual(matrix.metric("matrix_wake_failures_total"), 0, matrix.events("alice"))
        self.assertEqual(matrix.metric("matrix_held_requests"), 0)


class FiftyTests(MatrixCase):
    """Fifty users at once: each has their own machine started, once, and nobody fails."""

    SETTINGS = {"local_command": LIGHT}
    if os.environ.get("ACCEPTANCE_DAEMON"):
        SETTINGS = {}
    PATH = "/v1/files/" if os.environ.get("ACCEPTANCE_DAEMON") else "/report"

    def test_fifty_starts_and_no_error(self) -> None:
        matrix = self.matrix
        names = [f"user-{number}" for number in range(USERS)]
        tokens = [matrix.token(name) for name in names]
        for was in ("provisioning", "suspended"):
            answers, seconds = run(at_once(matrix.door, tokens, self.PATH), 60)
            self.assertEqual(Counter(answer.status for answer in answers), {200: USERS})
            woken = Counter(answer.headers["matrix-wake"].split(";")[0] for answer in answers)
            self.assertEqual(woken, {was: USERS})
            self.assertEqual(matrix.metric("matrix_wakes_total", was=was), USERS)
            processes = self.processes(names)
            self.assertEqual(len(set(processes)), USERS)
            self.tell(
                f"{USERS} users at once",
                was=was,
                median_s=f"{seconds[USERS // 2]:.2f}",
                last_s=f"{seconds[-1]:.2f}",
            )
            if was == "provisioning":
                matrix.suspend(*names)
                self.assertEqual({state_of(pid) for pid in processes}, {"T"})
                asleep = processes
        self.assertEqual(processes, asleep)
        self.assertEqual(matrix.metric("matrix_wake_failures_total"), 0, matrix.events(names[0]))
        self.assertEqual({len(matrix.events(name, "wake")) for name in names}, {2})

    def processes(self, names: list[str]) -> list[int]:
        """The one process of each machine."""
        found = []
        for name in names:
            (pid,) = self.matrix.machine_processes(name)
            found.append(pid)
        return found
