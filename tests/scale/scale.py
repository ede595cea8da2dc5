"""Very many users: their rows, a router that starts on them, and one that knows many of them."""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from hashlib import md5
from typing import Any
from uuid import UUID

from twisted.internet.task import Clock

from matrix.directory import PostgresDirectory, open_directory
from matrix.http import Backend, Counters, Limits
from matrix.model import Machine, UserId
from matrix.net import Wheel
from matrix.router.routes import SLIM, TIDIED, Route, RouteTable, Wake
from matrix.router.survey import PAGE
from matrix.testing.fly.running import RunningEmulator
from matrix.testing.postgres import execute
from matrix.testing.supplied import SuppliedMatrix, Supply

AWAKE_SHARE = 100
"""One in so many machines runs, and was used a moment ago."""

START_READS = "rows read one by one by a start"
START_FETCHES = "rows that a start finds by an index"
SCANS = "scans of users or machines by a start"
P99 = "ms for an unknown user, p99"
ENTRY = "bytes for a user who is known"

LIMITS: Mapping[str, float] = {
    SCANS: 0,
    START_READS: 0,
    START_FETCHES: 100,
    P99: 5.0,
    ENTRY: 1024,
}
"""What may be seen at most."""

_USERS = """
    INSERT INTO users (id, email)
    SELECT md5('user ' || n)::uuid, 'user' || n || '@example.org' FROM generate_series(1, {}) AS n
    """

_MACHINES = """
    INSERT INTO machines (
        user_id, provider, app, machine_id, volume_id, region, address, boot_id, image, state,
        generation, last_active_at, last_wake_at, wake_cause, suspend_cause, provision_step
    )
    SELECT md5('user ' || n)::uuid, 'fly', 'users', left(md5('machine ' || n), 14),
        'vol_' || left(md5('volume ' || n), 16), 'fra',
        'tcp:[fdaa:0:1:a7b::' || to_hex(n) || ']:8080',
        upper(left(md5('boot ' || n), 26)), 'registry.example/daemon:1',
        CASE WHEN n % {} = 0 THEN 'running' ELSE 'suspended' END, n,
        now() - CASE WHEN n % {} = 0 THEN interval '0 s' ELSE interval '1 s' * (n + 3600) END,
        now() - interval '1 d', 'request', 'idle', 'made'
    FROM generate_series(1, {}) AS n
    """

_READS = """
    SELECT coalesce(sum(seq_scan), 0), coalesce(sum(seq_tup_read), 0),
        coalesce(sum(idx_tup_fetch), 0)
    FROM pg_stat_user_tables
    WHERE relname IN ('users', 'machines')
    """


class Scale:
    """One database, and what is done on it."""

    def __init__(self, users: int, known: int, look_ups: int) -> None:
        self.users = users
        self.known = known
        self._look_ups = look_ups
        self._supply = Supply()

    def close(self) -> None:
        """Take everything back."""
        self._supply.close()

    def _sql(self, statement: str) -> list[tuple[Any, ...]]:
        return execute(statement, self._supply.dsn)

    def fill(self) -> None:
        """Make the rows. Without the triggers: nobody listens yet."""
        for table in ("users", "machines"):
            self._sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        self._sql(_USERS.format(self.users))
        self._sql(_MACHINES.format(AWAKE_SHARE, AWAKE_SHARE, self.users))
        for table in ("users", "machines"):
            self._sql(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        self._sql("VACUUM ANALYZE")

    # a start

    def start(self) -> dict[str, float]:
        """A whole router's, with machines at Fly, and its first seconds."""
        fly = RunningEmulator("tiny")
        matrix: SuppliedMatrix | None = None
        try:
            fly.start()
            matrix = SuppliedMatrix(
                self._supply, provider="fly", fly_api=fly.url, fly_token=fly.token,
                fly_app="users", fly_regions="fra", fly_image="registry.example/daemon:1",
            )  # fmt: skip
            self._sql("SELECT pg_stat_reset()")
            matrix.start()
            time.sleep(2.0)  # PostgreSQL counts a second late
            [(scans, rows, fetched)] = self._sql(_READS)
            return {"s until a router is ready": matrix.start_seconds, SCANS: float(scans),
                    START_READS: float(rows),
                START_FETCHES: float(fetched)}  # fmt: skip
        finally:
            if matrix is not None:
                matrix.close()
            fly.close()

    # a user of whom the router knows nothing

    async def unknown(self, reactor: Any) -> dict[str, float]:
        """What a request of theirs asks of PostgreSQL before anything is done, one by one."""
        directory = await open_directory(reactor, self._supply.dsn)
        try:
            await directory.wakes.find(_user(1))
            chance = random.Random(self.users)
            times = []
            for _ in range(self._look_ups):
                who = _user(chance.randint(1, self.users))
                began = time.perf_counter()
                found = await directory.wakes.find(who)
                times.append(1000 * (time.perf_counter() - began))
                assert found.machine is not None, who
            times.sort()
            idle = await self._idle_times(directory)
            walk = await self._walk(directory)
        finally:
            await directory.close()
        return {
            "ms for an unknown user, p50": times[len(times) // 2],
            P99: times[len(times) * 99 // 100],
            "ms for any statement at all on this host, p99": idle[len(idle) * 99 // 100],
            **walk,
        }

    async def _idle_times(self, directory: PostgresDirectory) -> list[float]:
        """What statements take that read nothing: of this host, not of the number of users."""
        times = []
        for _ in range(self._look_ups):
            began = time.perf_counter()
            await directory.roll.of([_user(0)])
            times.append(1000 * (time.perf_counter() - began))
        return sorted(times)

    async def _walk(self, directory: PostgresDirectory) -> dict[str, float]:
        """What the survey's router reads once a minute: all rows, a page at a time."""
        began = time.perf_counter()
        after: UserId | None = None
        slowest = 0.0
        while True:
            asked = time.perf_counter()
            page = await directory.roll.made("fly", after, PAGE)
            slowest = max(slowest, time.perf_counter() - asked)
            if len(page) < PAGE:
                break
            after = page[-1].user_id
        overdue = time.perf_counter()
        await directory.roll.overdue("fly", 900.0)
        done = time.perf_counter()
        return {
            "s to walk through all rows, as the survey does": overdue - began,
            "ms for its slowest page": 1000 * slowest,
            "ms to find the overdue": 1000 * (done - overdue),
        }

    # users who are known

    async def remember(self, reactor: Any) -> dict[str, float]:
        """What a route takes: one that rests, one that came to rest just now, one in use."""
        directory = await open_directory(reactor, self._supply.dsn)
        wall = [time.time()]
        table = RouteTable(lambda: wall[0])
        users = [_user(number) for number in range(1, self.known + 1)]
        try:
            await directory.roll.of(users[:PAGE])  # what is made once is made by now
            with _Weighing() as weighing:
                for start in range(0, len(users), PAGE):
                    await _visit_all(directory, table, users[start : start + PAGE])
                fresh = weighing.bytes() / self.known
                wall[0] += SLIM + 1
                began = time.perf_counter()
                for _ in range(0, self.known, TIDIED):
                    table.tidy()
                seconds = (time.perf_counter() - began) / len(range(0, self.known, TIDIED))
                resting = weighing.bytes() / self.known
        finally:
            await directory.close()
        assert len(table) == self.known
        return {
            ENTRY: resting,
            "bytes within a minute after use": fresh,
            "bytes while the machine is in use": fresh + _backend_size(),
            "ms to tidy some up, once a second": 1000 * seconds,
        }


class _Weighing:
    """Counts what is allocated within."""

    def __enter__(self) -> _Weighing:
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *exception: object) -> None:
        tracemalloc.stop()

    def bytes(self) -> int:
        """So far, without what is garbage."""
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._before


class _Idler:
    """Drives nothing."""

    def begin_wake(self, route: Route) -> None:
        """See L{matrix.router.routes.Driver}."""

    def begin_rest(self, route: Route, cause: str) -> None:
        """See L{matrix.router.routes.Driver}."""

    def release(self, route: Route) -> None:
        """See L{matrix.router.routes.Driver}."""


_IDLER = _Idler()


async def _visit_all(
    directory: PostgresDirectory, table: RouteTable, users: Sequence[UserId]
) -> None:
    for row in (await directory.roll.of(users)).values():
        _visit(table, row)


def _visit(table: RouteTable, row: Machine) -> None:
    """Leave a route as a wake and a rest do."""
    route = table.ensure(row.user_id, _IDLER)
    route.row = row
    route.identity = f"X-Matrix-User: {row.user_id}\r\nAuthorization: Bearer {0:064}\r\n".encode()
    route.wake = Wake(row.state, "request", 0.25 + row.generation, 0.1 + row.generation)
    route.note_use(row.last_active_at, 5000.0)
    route.began = 1.5 * row.generation
    route.learn(0.3 + row.generation)
    route.enter("resting")


def _backend_size() -> float:
    """Bytes that an unused set of connections takes; open ones come on top."""
    count = 1000
    wheel, counters, limits = Wheel(Clock()), Counters(), Limits()
    with _Weighing() as weighing:
        kept = [Backend(object(), wheel, limits, counters, 4.0) for _ in range(count)]  # type: ignore[arg-type]
        return weighing.bytes() / len(kept)


def _user(number: int) -> UserId:
    """As L{_USERS} names them."""
    return UserId(str(UUID(md5(f"user {number}".encode()).hexdigest())))
