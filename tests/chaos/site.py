"""Everything that chaos befalls: two routers, their PostgreSQL, and Fly."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from matrix.directory._cluster import wait_dead
from matrix.testing import postgres
from matrix.testing.fly.running import RunningEmulator
from matrix.testing.running import environment_of, is_running
from matrix.testing.supplied import SuppliedMatrix, Supply
from matrix.testing.wire import Door
from tests.chaos import catalogue

APP = "users"
ROUTERS = 2
WORKERS = 2

TIMINGS = {
    "unseen": "0-1", "pull": "0.2-1.5", "start": "0.1-0.5", "resume": "0.05-0.4",
    "suspend": "0.1-2.5", "stop": "0-0.3", "still_active": "0.2-0.6", "replace": "0.1-0.5",
    "destroy": "0.1-1", "destroyed": "2", "volume": "0.05-0.5", "restore": "0.5", "hydrate": "1",
}  # fmt: skip
"""Seconds, of Fly's order: short enough for much to happen, long enough to come in between."""

LIMITS = {
    "response_timeout": 25,
    "keepalive_timeout": 20,
    "wake_timeout": 20,
    "rest_rate": 20,
}
"""Shorter than usual, so that a client's patience outlasts them."""

DEAD_SECONDS = 20.0
"""For the kernel to be done with a process that was killed."""

START_TRIES = 10
"""A router that is started while its PostgreSQL is away ends, and is started again."""


class Router:
    """One of the routers, killed and started again."""

    def __init__(self, name: str, matrix: SuppliedMatrix) -> None:
        self.name = name
        self.matrix = matrix
        self.door: Door | None = None
        """Where it listens; C{None} until it was started."""
        self.pids: set[int] = set()
        """Its processes that were seen so far, workers included."""

    @property
    def access_log(self) -> Path:
        """In its working directory."""
        return self.matrix.home / "access.log"

    def start(self) -> int:
        """
        Start it, and wait until it serves.

        @return: how often it ended first, since something that it needs was away.
        @raise AssertionError: it does not start.
        """
        for tries in range(START_TRIES):
            try:
                self.matrix.start()
            except AssertionError:
                self.matrix.kill()  # or it would go on beside the next
                if tries == START_TRIES - 1:
                    raise
                time.sleep(0.5)
            else:
                break
        self.door = self.matrix.door
        self.pids.add(self.matrix.pid)
        return tries

    def kill(self, worker: int | None) -> bool:
        """
        SIGKILL to the supervisor, or to one of its workers.

        @param worker: which; C{None} for the supervisor.
        @return: whether it could be done: workers that come up are let be.
        """
        with suppress(OSError, ValueError):
            self.pids.update(workers := self.matrix.workers())
            if worker is not None and worker < len(workers):
                os.kill(workers[worker], signal.SIGKILL)
                return True
        if worker is None:
            self.matrix.kill()
        return worker is None


class Site:
    """One run's. Everything blocks: call it in a thread."""

    def __init__(self, idle: float, rate: float) -> None:
        """
        @param idle: seconds without use before a machine sleeps.
        @param rate: how likely each fault is.
        """
        self.rate = rate
        self.idle = idle
        program = Path(__file__).with_name("machine.py")
        command = [sys.executable, "-I", "-S", str(program), "{host}", "{port}", "{data}"]
        self.fly = RunningEmulator(shlex.join(command), **TIMINGS)
        self.supply = Supply()
        self.routers = [Router(f"router {number}", self._router()) for number in range(ROUTERS)]
        self._starts = 0

    def _router(self) -> SuppliedMatrix:
        fly = {
            "provider": "fly",
            "fly_token": self.fly.token,
            "fly_app": APP,
            "fly_regions": "fra,ams",
            "fly_image": "registry.example/daemon:1",
        }
        return SuppliedMatrix(
            self.supply, idle=self.idle, workers=WORKERS, access_log="access.log", **LIMITS, **fly
        )

    def start(self) -> None:
        """Everything, one after the other; nothing goes wrong yet."""
        self.fly.start()
        self.fly.ask("POST", "/v1/apps", {"name": APP, "org_slug": "personal"})
        for router in self.routers:
            router.matrix._environment["MATRIX_FLY_API"] = self.fly.url
            router.start()

    def close(self) -> None:
        """Leave nothing behind."""
        for router in self.routers:
            router.matrix.close()
        self.supply.close()
        self.fly.close()

    # what goes wrong

    def break_fly(self) -> None:
        """From now on every call may fare ill."""
        for name in catalogue.CHANCES:
            self.fly.ask("POST", "/_emulator/settings", {name: self.rate})
        for fault in catalogue.faults(self.rate):
            self.fly.ask("POST", "/_emulator/faults", fault)

    def mend_fly(self) -> None:
        """From now on none does."""
        self.fly.ask("DELETE", "/_emulator/faults")
        for name in catalogue.CHANCES:
            self.fly.ask("POST", "/_emulator/settings", {name: 0})

    def restart_fly(self, pause: float) -> None:
        """
        Kill the emulator, whose machines run on, and start it with other habits.

        @param pause: seconds between the two.
        """
        self.fly.kill()
        time.sleep(pause)
        self.fly.start()
        self._starts += 1
        habits = catalogue.SWITCHES[self._starts % len(catalogue.SWITCHES)]
        self.fly.ask("POST", "/_emulator/settings", dict(habits))
        self.break_fly()

    def restart_postgres(self, how: signal.Signals, pause: float) -> None:
        """
        End PostgreSQL, and start it where it was.

        @param how: SIGINT closes all connections, SIGQUIT and SIGKILL have it recover.
        @param pause: seconds between the two.
        """
        server = postgres.server()
        assert server.process is not None
        os.kill(server.process.pid, how)
        assert wait_dead(server.process, DEAD_SECONDS), "PostgreSQL does not end"
        time.sleep(pause)
        server.restart()

    # what there is

    def machines(self) -> list[dict[str, Any]]:
        """At Fly, but those that are destroyed."""
        found = self.fly.ask("GET", f"/v1/apps/{APP}/machines")
        return [each for each in found if each["state"] not in ("destroyed", "destroying")]

    def volumes(self) -> list[dict[str, Any]]:
        """At Fly, but those that were deleted."""
        found = self.fly.ask("GET", f"/v1/apps/{APP}/volumes")
        return [each for each in found if not str(each["state"]).endswith("destroy")]

    def rows(self) -> list[dict[str, Any]]:
        """In the directory."""
        [(rows,)] = postgres.execute(
            "SELECT coalesce(json_agg(machines), '[]') FROM machines", self.supply.dsn
        )
        assert isinstance(rows, list)
        return rows

    def journals(self) -> Iterator[str]:
        """What machines wrote down, a JSON object each; copies of volumes repeat it."""
        for path in self.fly.state.glob("volumes/*/data/journal"):
            yield from path.read_text("ascii").splitlines()

    def keep(self, place: Path) -> None:
        """
        Write down what helps to find out what happened.

        @param place: a directory; made if it is not there.
        """
        place.mkdir(parents=True, exist_ok=True)
        for router in self.routers:
            (place / f"{router.name}.log").write_text(router.matrix.output())
            shutil.copy(router.access_log, place / f"{router.name} access.log")
        (place / "fly.log").write_text(self.fly.output())
        calls = [self.fly.calls(action=action)["calls"] for action in self.fly.calls()["by_action"]]
        events = "SELECT row_to_json(events)::text FROM events ORDER BY at"
        for name, lines in (
            ("calls", [json.dumps(call) for some in calls for call in some]),
            ("events", [str(line) for (line,) in postgres.execute(events, self.supply.dsn)]),
            ("journals", sorted(set(self.journals()))),
            ("rows", [json.dumps(row) for row in self.rows()]),
        ):
            (place / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))

    def orphans(self) -> list[int]:
        """Processes of routers that should have ended with their supervisor."""
        alive = {router.matrix.pid for router in self.routers}
        for router in self.routers:
            with suppress(OSError, ValueError):
                alive.update(router.matrix.workers())
        mark = f"DATABASE_URL={self.supply.dsn}".encode()
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
        return [
            pid
            for pid in pids
            if pid not in alive and is_running(pid) and mark in environment_of(pid)
        ]
