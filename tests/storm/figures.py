"""What a Matrix and its machines hold while nothing goes on, and what of it has leaked."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix.testing.running import RunningMatrix, state_of
from tests.storm.visitor import Resident

GAUGES = {
    "client connections": ("matrix_open_connections", {"side": "client"}),
    "machine connections": ("matrix_open_connections", {"side": "machine"}),
    "requests in flight": ("matrix_open_streams", {"kind": "http"}),
    "event streams": ("matrix_open_streams", {"kind": "sse"}),
    "WebSockets": ("matrix_open_streams", {"kind": "websocket"}),
    "held requests": ("matrix_held_requests", {}),
    "held bytes": ("matrix_held_bytes", {}),
}
"""What must be nothing when nothing goes on."""

OURS = ("matrix.", "uvloop.", "ssl.", "_ssl.", "asyncio.", "_asyncio.", "twisted.internet.")
"""Whose objects are counted one by one."""

RESTLESS = {
    "matrix.directory.awake.FleetWaking": 10,
    "matrix.metrics._instruments.Counter": 100,
    "matrix.metrics._instruments.Gauge": 10,
    "matrix.metrics._instruments.Histogram": 10,
    "twisted.internet.base.DelayedCall": 60,
    "twisted.internet.defer.Deferred": 4,
    "uvloop.loop.TimerHandle": 10,
    "uvloop.loop.UVTimer": 10,
}
"""How many more there may be of objects that come and go, or come once. There is a counter for
each reason of a refusal ever given, a gauge for each cause of a wake, a histogram for each state
that a machine was ever woken from; what is done again and again waits for PostgreSQL, long on a
busy host; and the reactor keeps up to fifty timers that were cancelled until they would have
been due."""

DATABASE_CONNECTION = "matrix.directory._connection.Connection"

POOL_BOUND = 4
"""Connections to PostgreSQL in the pool, which are made when more are needed than there are."""

POOLED = {
    DATABASE_CONNECTION,
    "twisted.internet.defer.DeferredLock",
    "uvloop.loop.Handle",
    "uvloop.loop.UVPoll",
    "file descriptors",
    "files: socket",
}
"""What there is one more of with each of them."""

MEMORY_BOUND = 5 * 2**20
"""Bytes that the router may grow by from the middle to the end. Half a run of ten minutes is
about thirty thousand requests on twenty thousand connections, so this is less than 200 bytes
for each request, and less than any of our objects takes."""

THREADS_BOUND = 10 + 8
"""Those of the reactor's pool and of the provider's, which grow up to this when needed."""


LOOKS = 3
LOOK_INTERVAL = 0.4
"""Seconds between two looks: longer than a query or a connection takes."""


@dataclass(frozen=True)
class Figures:
    """What there is while nothing goes on."""

    requests: int
    """Answered until then."""
    memory: int
    """Bytes."""
    threads: int
    counts: Mapping[str, int]
    """What must not have grown."""
    instances: Mapping[str, int]
    """Objects by class: the same, class by class."""

    @classmethod
    def take(cls, matrix: RunningMatrix, users: Sequence[Resident]) -> Figures:
        """
        What there is in each of several looks: what leaks is there in all of them, and what
        passes (the looking connection itself, a pass of the reconciler) is not.
        """
        looks = [cls._look(matrix, users)]
        while len(looks) < LOOKS:
            time.sleep(LOOK_INTERVAL)
            looks.append(cls._look(matrix, users))
        return cls(
            looks[-1].requests,
            min(look.memory for look in looks),
            min(look.threads for look in looks),
            _fewest([look.counts for look in looks]),
            _fewest([look.instances for look in looks]),
        )

    @classmethod
    def _look(cls, matrix: RunningMatrix, users: Sequence[Resident]) -> Figures:
        gauges = {name: int(matrix.metric(s, **labels)) for name, (s, labels) in GAUGES.items()}
        census = matrix.census()
        kinds = census["files"].items()
        counts = {
            **gauges,
            "file descriptors": sum(census["files"].values()),
            **{f"files: {Path(name).name}": count for name, count in kinds},
            "asyncio tasks": census["tasks"],
            "delayed calls": census["delayed_calls"],
            "deadlines": census["deadlines"],
            "zombies": sum(state_of(pid) == "Z" for pid in _children(matrix.pid)),
            "machine processes": sum(len(matrix.machine_processes(user.name)) for user in users),
            "sockets of machines": sum(_sockets_of_machines(matrix, users)),
            "socket files": sum(path.is_socket() for path in matrix.state.rglob("*")),
            "unfinished files": sum(_is_scratch(path) for path in matrix.state.rglob("*")),
        }
        instances = {
            name: count for name, count in census["instances"].items() if name.startswith(OURS)
        }
        requests = int(matrix.metric("matrix_requests_total"))
        return cls(requests, census["memory_bytes"], census["threads"], counts, instances)

    @property
    def _pooled(self) -> int:
        return self.instances.get(DATABASE_CONNECTION, 0)

    def leaks(self, before: Figures, middle: Figures | None = None) -> Iterator[str]:
        """What there is more of than before; memory since the middle."""
        for name in GAUGES:
            if self.counts[name]:
                yield f"{name}: {self.counts[name]}, not 0"
        pooled = min(max(0, self._pooled - before._pooled), POOL_BOUND)
        for name, count in self.counts.items():
            more = pooled if name in POOLED else 0
            if count > before.counts.get(name, 0) + more:
                yield f"{name}: {count}, {before.counts.get(name, 0)} before"
        for name, count in self.instances.items():
            more = pooled if name in POOLED else RESTLESS.get(name, 0)
            if count > before.instances.get(name, 0) + more:
                yield f"objects of {name}: {count}, {before.instances.get(name, 0)} before"
        if self.threads > before.threads + THREADS_BOUND:
            yield f"threads: {self.threads}, {before.threads} before"
        if middle is not None and self.memory > middle.memory + MEMORY_BOUND:
            grown = (self.memory - middle.memory) / 2**20
            yield f"memory: {grown:.1f} MB more than in the middle"


def table(looks: Mapping[str, Figures]) -> str:
    """The figures side by side; classes only where they differ, or are of the data path."""
    rows = [("", *looks)]
    rows.append(("requests until then", *(str(look.requests) for look in looks.values())))
    rows.append(("memory, MB", *(f"{look.memory / 2**20:.1f}" for look in looks.values())))
    rows.append(("threads", *(str(look.threads) for look in looks.values())))
    names = dict.fromkeys(name for look in looks.values() for name in look.counts)
    rows += [(name, *(str(look.counts.get(name, 0)) for look in looks.values())) for name in names]
    totals = [sum(look.instances.values()) for look in looks.values()]
    rows.append(("objects of our classes", *map(str, totals)))
    classes = dict.fromkeys(name for look in looks.values() for name in look.instances)
    for name in classes:
        counts = [look.instances.get(name, 0) for look in looks.values()]
        if len(set(counts)) > 1 or name.endswith(("._server.ServerConnection", "._relay.Relay")):
            rows.append((f"  {name}", *map(str, counts)))
    width = max(len(row[0]) for row in rows)
    lines = (f"{name:{width}}" + "".join(f"{cell:>12}" for cell in cells) for name, *cells in rows)
    return "\n".join(lines)


def _fewest(looks: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The least that any look saw of each, in the order of the first."""
    return {name: min(look.get(name, 0) for look in looks) for name in looks[0]}


def _children(parent: int) -> Iterator[int]:
    for task in Path(f"/proc/{parent}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


def _sockets_of_machines(matrix: RunningMatrix, users: Sequence[Resident]) -> Iterator[int]:
    for user in users:
        for pid in matrix.machine_processes(user.name):
            folder = Path(f"/proc/{pid}/fd")
            kinds = Counter(os.readlink(path).split(":")[0] for path in folder.iterdir())
            yield kinds["socket"]


def _is_scratch(path: Path) -> bool:
    """What is written before it is given its name: our own files end so, and uploads lie in a
    folder of their own."""
    return path.suffix in (".new", ".tmp") or (path.parent.name == ".incoming" and path.is_file())
