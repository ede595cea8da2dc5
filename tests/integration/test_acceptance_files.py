"""A flood of connections that say nothing, and a router that may open few files."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from matrix.net import allow_many_files
from matrix.testing.running_case import MatrixCase
from matrix.testing.wire import Wire, run

FILES = 600
"""What the router may open: 344 are for clients."""

FLOOD = 3000
"""Connections without a word, from several addresses."""

ADDRESSES = [f"127.0.0.{number}" for number in range(2, 10)]


QUICK = 2.0
"""Seconds for a request amid a flood: a few hundredths, but on a host that others use up. Without
a file of its own it would wait for a silent connection's limit, which is ten."""


class FloodTests(MatrixCase):
    """Whoever is inside is served, whoever is not is told or cut off, and files never run out."""

    SETTINGS = {"files": FILES}

    @classmethod
    def setUpClass(cls) -> None:
        allow_many_files()
        super().setUpClass()

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.matrix.pid}/fd"))

    @asynccontextmanager
    async def flood(self) -> AsyncIterator[None]:
        """Clients that connect, and again as soon as they are thrown out."""
        loop = asyncio.get_running_loop()
        door = self.matrix.door
        self.most = self.turns = 0

        async def one(address: str) -> None:
            while True:
                client = socket.socket()
                try:
                    client.setblocking(False)
                    client.bind((address, 0))
                    await loop.sock_connect(client, ("127.0.0.1", door.port))
                    await loop.sock_recv(client, 1)
                except OSError:
                    pass
                finally:
                    client.close()
                self.turns += 1
                await asyncio.sleep(1)

        async def watch() -> None:
            while True:
                self.most = max(self.most, self.files())
                await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(one(ADDRESSES[n % len(ADDRESSES)])) for n in range(FLOOD)]
        tasks.append(asyncio.create_task(watch()))
        try:
            await asyncio.sleep(3)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def timed(self, wire: Wire, path: str) -> float:
        began = time.perf_counter()
        answer = await wire.request("GET", path)
        self.assertEqual(answer.status, 200)
        return time.perf_counter() - began

    def test_silent_connections(self) -> None:
        self.ask("alice", "PUT", "/v1/files/x", b"here")
        alice, bob = self.matrix.token("alice"), self.matrix.token("bob")
        before = self.files()

        async def attacked() -> tuple[list[float], float, list[str]]:
            door = self.matrix.door
            async with door.wire(alice) as wire, door.wire(bob) as other:
                await self.timed(wire, "/v1/files/x")
                await self.timed(other, "/-/healthz")
                async with self.flood():
                    times = [await self.timed(wire, "/v1/files/x") for _ in range(100)]
                    waking = await self.timed(other, "/healthz")
                    outcomes = [await self.outcome(alice) for _ in range(40)]
            return sorted(times), waking, outcomes

        times, waking, outcomes = run(attacked(), 90)
        self.tell(
            "flood",
            turns=self.turns,
            p50_ms=round(times[50] * 1000, 1),
            p99_ms=round(times[98] * 1000, 1),
            wake_s=round(waking, 2),
            outcomes={one: outcomes.count(one) for one in set(outcomes)},
            most_files=self.most,
            before=before,
        )
        self.assertLess(times[98], QUICK)
        self.assertLessEqual(set(outcomes), {"200 fast", "503 fast", "ConnectionResetError fast"})
        self.assertLess(self.most, FILES - 128)
        self.matrix.until(lambda: self.files() <= before + 8, 20, "its files are closed")
        self.assertEqual(self.ask("alice", "GET", "/v1/files/x").status, 200)

    def test_established_connections(self) -> None:
        self.ask("alice", "PUT", "/v1/files/x", b"here")
        alice, carol = self.matrix.token("alice"), self.matrix.token("carol")
        before = self.files()

        async def crowded() -> tuple[list[str], list[float], float, list[int]]:
            door = self.matrix.door
            async with door.wire(carol) as asleep, door.wire(alice) as wire:
                await self.timed(asleep, "/-/healthz")
                inside = [wire]
                try:
                    while (added := await door.open(alice)) and await self.is_served(added):
                        inside.append(added)
                    inside.append(added)
                    outcomes = [await self.outcome(alice) for _ in range(100)]
                    times = [await self.timed(one, "/v1/files/x") for one in inside[:100]]
                    waking = await self.timed(asleep, "/healthz")
                    at_once = await asyncio.gather(
                        *(one.request("GET", "/v1/files/x") for one in inside[:-1])
                    )
                    return outcomes, sorted(times), waking, [answer.status for answer in at_once]
                finally:
                    for one in inside:
                        one.close()

        wakes = self.matrix.metric("matrix_wakes_total")
        outcomes, times, waking, at_once = run(crowded(), 90)
        self.tell(
            "full house",
            inside=len(at_once) + 1,
            p50_ms=round(times[50] * 1000, 1),
            wake_s=round(waking, 2),
            outcomes={one: outcomes.count(one) for one in set(outcomes)},
            at_once={one: at_once.count(one) for one in set(at_once)},
        )
        self.assertEqual(set(outcomes), {"503 fast"})
        self.assertGreater(len(at_once), FILES - 256 - before - 10)
        self.assertEqual(set(at_once), {200, 503}, "machines get no more files than are theirs")
        self.assertEqual(self.matrix.metric("matrix_wakes_total"), wakes + 1, "carol's alone")
        refused = self.matrix.metric("matrix_refused_total", reason="connections")
        self.assertGreaterEqual(refused, 100)
        self.matrix.until(lambda: self.files() <= before + 8, 20, "its files are closed")
        self.assertEqual(self.ask("alice", "GET", "/v1/files/x").status, 200)

    async def is_served(self, wire: Wire) -> bool:
        return (await wire.request("GET", "/-/healthz")).status == 200

    async def outcome(self, token: str) -> str:
        began = time.perf_counter()
        try:
            answer = await self.matrix.door.request("GET", "/v1/files/x", token)
            result = str(answer.status)
        except (OSError, EOFError) as error:
            result = type(error).__name__
        took = time.perf_counter() - began
        return f"{result} {'fast' if took < 2.0 else 'slow'}"
