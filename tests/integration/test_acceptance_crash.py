"""What ends suddenly, and what becomes of users' machines and files then."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h11
import pytest

from matrix.testing.running import RunningMatrix, is_running, state_of
from matrix.testing.running_case import MatrixCase
from matrix.testing.wire import Door, run

USERS = ("alice", "bob")
WRITERS = 4
"""Clients of each user that write at the same time."""


class Case(MatrixCase):
    """All classes here share one Matrix."""


@pytest.fixture(scope="module", autouse=True)
def _one_for_all() -> Iterator[None]:
    with Case.shared():
        yield


class Traffic:
    """Clients that write files, one after the other, until their connections break."""

    def __init__(self, matrix: RunningMatrix, round_: str) -> None:
        self._door = matrix.door
        self._tokens = {user: matrix.token(user) for user in USERS}
        self._round = round_
        self.written: dict[str, list[str]] = {user: [] for user in USERS}
        """What the machines said they have."""
        self.answers: list[int] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)

    def count(self) -> int:
        return sum(map(len, self.written.values()))

    def _run(self) -> None:
        run(self._all(), 30)

    async def _all(self) -> None:
        await asyncio.gather(
            *(self._write(user, writer) for user in USERS for writer in range(WRITERS))
        )

    async def _write(self, user: str, writer: int) -> None:
        async with self._door.wire(self._tokens[user]) as wire:
            for number in range(100_000):
                name = f"{self._round}-{writer}-{number}"
                try:
                    answer = await wire.request("PUT", f"/v1/files/{name}", body=content(name))
                except (OSError, h11.RemoteProtocolError):
                    return
                self.answers.append(answer.status)
                self.written[user].append(name)


def content(name: str) -> bytes:
    return name.encode() * 1000


class RouterKilledTests(Case):
    """SIGKILL to the router; then another one starts in the same directory."""

    def restart(self) -> None:
        self.matrix.start()
        self.tell("start after a crash", seconds=f"{self.matrix.start_seconds:.2f}")

    def machines(self) -> dict[str, Any]:
        """What must not change: processes, boots and ids of all machines."""
        return {
            user: (
                self.matrix.machine_processes(user),
                self.row(user)["boot_id"],
                self.row(user)["machine_id"],
            )
            for user in USERS
        }

    def setUp(self) -> None:
        for user in USERS:
            self.assertEqual(self.ask(user, "GET", "/v1/files/").status, 200)

    def postmaster(self) -> int:
        (pid,) = (
            pid
            for pid in self.matrix.processes()
            if b"postgres\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        return pid

    def test_during_traffic(self) -> None:
        before, postmaster = self.machines(), self.postmaster()
        with Traffic(self.matrix, "crash") as traffic:
            self.matrix.until(lambda: traffic.count() > 200, 20, "traffic flows")
            self.matrix.kill()
        for user in USERS:
            self.assertTrue(all(map(is_running, before[user][0])))
        self.restart()
        self.assertEqual(self.machines(), before)
        self.assertEqual(self.postmaster(), postmaster)
        self.assertEqual(set(traffic.answers), {201})
        for user, names in traffic.written.items():
            self.assertEqual(self.ask(user, "GET", "/v1/files/").status, 200)
            folder = self.matrix.workspace(user)
            for name in names:
                self.assertEqual((folder / name).read_bytes(), content(name))
            # An upload that was cut is not there at all: nothing but whole files is.
            for file in folder.iterdir():
                self.assertEqual(file.read_bytes(), content(file.name), file)
        self.tell("killed during traffic", files=traffic.count())
        self.assertEqual(self.machines(), before)

    def test_while_a_machine_sleeps(self) -> None:
        self.matrix.suspend("alice")
        before = self.machines()
        self.matrix.kill()
        self.assertEqual({state_of(pid) for pid in before["alice"][0]}, {"T"})
        self.restart()
        self.assertEqual({state_of(pid) for pid in before["alice"][0]}, {"T"})
        answer = self.ask("alice", "GET", "/v1/files/")
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.headers["matrix-wake"].startswith("suspended;"))
        self.assertEqual(self.machines(), before)

    def test_together_with_postgresql_and_a_machine(self) -> None:
        self.ask("alice", "PUT", "/v1/files/kept.txt", b"kept")
        before = self.machines()
        postmaster = self.postmaster()
        self.matrix.kill()
        os.kill(postmaster, signal.SIGKILL)
        self.matrix.kill_machine("alice")
        self.matrix.until(lambda: not is_running(postmaster), 10, "PostgreSQL is gone")
        self.restart()
        self.assertEqual(self.ask("alice", "GET", "/v1/files/kept.txt").body, b"kept")
        self.assertEqual(self.ask("bob", "GET", "/v1/files/").status, 200)
        after = self.machines()
        self.assertEqual(after["bob"], before["bob"])
        self.assertEqual(after["alice"][2], before["alice"][2])
        self.assertNotEqual(after["alice"][1], before["alice"][1])

    def kill_in_a_wake(self, begun: Callable[[], object]) -> float:
        """
        Have alice's machine woken, and kill the router as soon as C{begun}.

        @return: seconds from the next start to an answer.
        """
        door, token = self.matrix.door, self.matrix.token("alice")
        asking = threading.Thread(target=_ask_and_be_let_down, args=(door, token))
        asking.start()
        self.matrix.until(begun, 10, "the wake has begun")
        self.matrix.kill()
        asking.join(30)
        self.restart()
        began = time.monotonic()
        self.assertEqual(self.ask("alice", "GET", "/v1/files/").status, 200)
        return time.monotonic() - began

    def test_in_the_middle_of_a_start(self) -> None:
        before = self.machines()
        self.matrix.kill_machine("alice")
        self.matrix.until(lambda: self.row("alice")["state"] == "stopped", 10, "death is noticed")
        waited = self.kill_in_a_wake(lambda: self.matrix.machine_processes("alice"))
        self.tell("killed in a start", answered_after_s=f"{waited:.2f}")
        self.assertLess(waited, 5)
        self.assert_one_machine(before)

    def test_in_the_middle_of_a_resumption(self) -> None:
        before = self.machines()
        self.matrix.suspend("alice")
        awake = before["alice"][0]
        waited = self.kill_in_a_wake(lambda: state_of(awake[0]) != "T")
        self.tell("killed in a resumption", answered_after_s=f"{waited:.2f}")
        self.assertLess(waited, 5)
        self.assertEqual(self.machines(), before)

    def assert_one_machine(self, before: dict[str, Any]) -> None:
        after = self.machines()
        self.assertEqual(after["bob"], before["bob"])
        self.assertEqual(after["alice"][2], before["alice"][2])
        self.assertEqual(len(after["alice"][0]), len(before["alice"][0]))


def _ask_and_be_let_down(door: Door, token: str) -> None:
    try:
        door.ask("GET", "/v1/files/", token)
    except (OSError, h11.RemoteProtocolError):
        return


class MachineKilledTests(Case):
    """SIGKILL to all processes of a machine."""

    def test_the_next_request_brings_it_back(self) -> None:
        self.ask("alice", "PUT", "/v1/files/kept.txt", b"kept")
        before = self.row("alice")
        with self.subTest("awake"):
            self.matrix.kill_machine("alice")
            answer = self.ask("alice", "GET", "/v1/files/kept.txt")
            self.assertEqual((answer.status, answer.body), (200, b"kept"))
            self.assertNotEqual(self.row("alice")["boot_id"], before["boot_id"])
            self.tell("machine killed awake", wake=answer.headers.get("matrix-wake"))
        with self.subTest("asleep"):
            self.matrix.suspend("alice")
            self.matrix.kill_machine("alice")
            answer = self.ask("alice", "GET", "/v1/files/kept.txt")
            self.assertEqual((answer.status, answer.body), (200, b"kept"))
            self.tell("machine killed asleep", wake=answer.headers.get("matrix-wake"))
        with self.subTest("noticed first"):
            self.matrix.kill_machine("alice")
            self.matrix.until(lambda: self.row("alice")["state"] == "stopped", 10, "it is noticed")
            answer = self.ask("alice", "GET", "/v1/files/kept.txt")
            self.assertEqual((answer.status, answer.body), (200, b"kept"))
            self.assertTrue(answer.headers["matrix-wake"].startswith("stopped;"))
        self.assertEqual(len(self.matrix.machine_processes("alice")), 1)
        self.assertIn("died", [event["kind"] for event in self.matrix.events("alice")])
