"""
A siege: a hundred thousand forged tokens at the door of one real Matrix, which must let nobody
in by them, ask the issuer for its keys no more often than ever, and serve its users meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shlex
import sys
from collections import Counter
from collections.abc import Awaitable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import matrix.testing
from matrix.auth._keys import THROTTLE
from matrix.testing.supplied import SuppliedMatrix
from matrix.testing.wire import run
from tests.siege.attackers import Orders, Outcome
from tests.siege.forgeries import Forger
from tests.siege.guest import PATH, Guest, Visit

STREAMS = Path(matrix.testing.__path__[0], "stream_machine.py")
USER = "alice"
TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds in which the kernel counts CPU time (proc_pid_stat(5))."""

REGULAR = 0.01
"""Seconds between two requests of a guest whose token is known."""

NEWCOMER = 0.1
"""Seconds between two requests with a token that was never seen before."""

LATER = 0.25
"""The share of a siege in which the router has learned whose tokens not to look at."""

SETTLE = 2.5
"""Seconds until the metrics have what each worker counted."""

LONGEST = 900.0
"""Seconds for a siege."""

EXPECTED = {
    "random kid": "unknown-key",
    "bad signature": "signature",
    "payload changed": "signature",
    "signature changed": "signature",
    "alg none": "algorithm",
    "HS256 with the public key": "algorithm",
}
"""Why each kind of forgery is refused, if it is looked at."""

LIMITED = "limited"
"""Why one is refused without a look: too many came from its address."""


@dataclass
class Look:
    """What a Matrix has used and counted up to now."""

    cpu: float
    """Seconds, of all its processes."""
    memory: int
    """Bytes, of all its processes."""
    fetches: int
    """Of the key set, as the issuer counts them."""
    refused: Counter[str]
    """Tokens by the reason of their refusal."""
    servers: int
    """How many processes serve: each has keys of its own."""

    @classmethod
    def take(cls, matrix: SuppliedMatrix) -> Look:
        """Look at a running one."""
        workers = matrix.workers()
        pids = [matrix.pid, *workers]
        reasons = {*EXPECTED.values(), LIMITED}
        told = {name: matrix.metric("matrix_auth_total", result=name) for name in reasons}
        return cls(
            sum(map(cpu_of, pids)),
            sum(map(memory_of, pids)),
            matrix.supply.issuer.fetches(),
            Counter({name: int(count) for name, count in told.items()}),
            max(len(workers), 1),
        )


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def memory_of(pid: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Report:
    """One siege."""

    calm: Mapping[str, Visit]
    """Guests before it,"""
    besieged: Mapping[str, Visit]
    """and during it."""
    before: Look
    after: Look
    outcome: Outcome

    @property
    def shown(self) -> int:
        """How many tokens were shown and answered."""
        return sum(self.outcome.statuses.values())

    @property
    def refused(self) -> Counter[str]:
        """Forged tokens by the reason of their refusal."""
        return self.after.refused - self.before.refused

    @property
    def fetches(self) -> int:
        """Of the key set."""
        return self.after.fetches - self.before.fetches

    def faults(self) -> list[str]:
        """What must not have been; nothing here depends on how fast anything was."""
        statuses, refused = self.outcome.statuses, self.refused
        looked_at = self.shown - refused[LIMITED]
        found = [
            f"{count} forged tokens were answered {status}"
            for status, count in statuses.items()
            if status not in (401, 429)
        ]
        if sum(refused[reason] for reason in set(EXPECTED.values())) != looked_at:
            found.append(f"of {looked_at} tokens looked at, not all are counted: {refused}")
        if statuses[429] != refused[LIMITED]:
            found.append(f"{statuses[429]} answers of 429, but {refused[LIMITED]} counted")
        most = self.after.servers * (1 + int(self.outcome.seconds / THROTTLE))
        if self.fetches > most:
            found.append(f"the issuer was asked {self.fetches} times for its keys")
        for name, visit in {**self.calm, **self.besieged}.items():
            if set(visit.statuses) != {200}:
                found.append(f"a valid user ({name}) was answered {dict(visit.statuses)}")
        return found

    def lines(self) -> list[str]:
        """For people."""
        shown, outcome, cpu = self.shown, self.outcome, self.after.cpu - self.before.cpu
        told = [
            f"{shown} forged tokens in {outcome.seconds:.1f} s, on {outcome.connections} "
            f"connections: {shown / outcome.seconds:.0f}/s",
            f"answers: {_counts(outcome.statuses)}",
            f"refused: {_counts(self.refused)}",
            f"router: {cpu:.1f} s of CPU, guests included; "
            f"memory {self.before.memory / 2**20:.1f} -> {self.after.memory / 2**20:.1f} MiB",
            f"JWKS fetches: {self.fetches}",
        ]
        for name, calm in self.calm.items():
            during = self.besieged[name]
            told.append(
                f"{name}: p50 {calm.percentile(0.5):.1f} -> {during.percentile(0.5):.1f} ms, "
                f"p99 {calm.percentile(0.99):.1f} -> {during.percentile(0.99):.1f} ms "
                f"({during.percentile(0.99, LATER):.1f} ms later on), "
                f"{len(during.seconds)} answers"
            )
        return told


def _counts(counts: Counter[str] | Counter[int]) -> str:
    return ", ".join(f"{count} x {what}" for what, count in sorted(counts.items()))


@dataclass(frozen=True)
class Plan:
    """How to besiege."""

    tokens: int = 100_000
    connections: int = 1500
    addresses: int = 250
    calm: float = 10.0
    """Seconds before it begins."""
    seconds: float = 600.0
    """After which no more tokens are shown."""
    seed: str = "siege"

    def attackers(self) -> list[str]:
        """Where the forgers come from."""
        return [f"127.0.0.{number}" for number in range(2, 2 + self.addresses)]


class Siege:
    """One Matrix and those who come to it."""

    def __init__(self, plan: Plan, **settings: object) -> None:
        """
        @param settings: of the Matrix.
        """
        self._plan = plan
        command = shlex.join([sys.executable, str(STREAMS), "{socket}"])
        self.matrix = SuppliedMatrix(local_command=command, **settings)
        self._known = ""
        """A token that the router has seen."""

    def run(self) -> Report:
        """The whole of it; leaves nothing behind."""
        try:
            self.matrix.start()
            self._known = self.matrix.token(USER)
            assert self.matrix.door.ask("GET", PATH, self._known).status == 200
            return run(self._besiege(), LONGEST)
        finally:
            self.matrix.close()

    async def _besiege(self) -> Report:
        plan = self._plan
        forged = list(Forger(self.matrix.issuer(), USER).make(plan.tokens))
        random.Random(plan.seed).shuffle(forged)
        orders = Orders(
            self.matrix.door.port,
            str(self.matrix.supply.ca),
            plan.attackers(),
            plan.connections,
            plan.seconds,
            [token for _, token in forged],
        )
        calm = await self._visited(asyncio.sleep(plan.calm))
        before = await asyncio.to_thread(Look.take, self.matrix)
        attack = asyncio.ensure_future(_attack(orders))
        besieged = await self._visited(attack)
        await asyncio.sleep(SETTLE)
        after = await asyncio.to_thread(Look.take, self.matrix)
        return Report(calm, besieged, before, after, attack.result())

    async def _visited(self, work: Awaitable[object]) -> Mapping[str, Visit]:
        """What guests see while something goes on."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            visits = {
                name: group.create_task(guest.visit(over)) for name, guest in self._guests().items()
            }
            try:
                await work
            finally:
                over.set()
        return {name: visit.result() for name, visit in visits.items()}

    def _guests(self) -> Mapping[str, Guest]:
        matrix, issuer, known = self.matrix, self.matrix.issuer(), self._known
        attacker = self._plan.attackers()[0]
        return {
            "user": Guest(matrix.door, "127.0.0.1", REGULAR, lambda: known),
            "user at a forger's address": Guest(matrix.door, attacker, REGULAR, lambda: known),
            "newcomer": Guest(matrix.door, "127.0.0.1", NEWCOMER, lambda: issuer.mint(USER)),
        }


async def _attack(orders: Orders) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.siege.attackers",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parent.parent.parent,
    )
    try:
        told, _ = await process.communicate(json.dumps(asdict(orders)).encode())
    except BaseException:
        process.kill()
        raise
    assert process.returncode == 0, f"the attackers ended with {process.returncode}"
    outcome = json.loads(told)
    outcome["statuses"] = Counter({int(code): n for code, n in outcome["statuses"].items()})
    return Outcome(**outcome)
