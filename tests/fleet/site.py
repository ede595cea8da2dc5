"""A router, Fly's emulator, and users whose machines were made beforehand and sleep."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

from matrix.testing.fly.running import RunningEmulator
from matrix.testing.postgres import execute, server
from matrix.testing.supplied import SuppliedMatrix

APP = "users"
PORT = 8080
"""Where a machine listens."""

REST = 0.05
"""Seconds that the emulator takes to suspend a machine, and for all that is not measured."""

HANDS = 8
"""At once, where machines are made or put to sleep."""

MADE_SECONDS = 30.0
"""For one machine, on a busy host."""

STATEMENT = "statement: "


class Site:
    """All of it; closed at the end, it leaves nothing behind."""

    def __init__(self, users: int, resume: float) -> None:
        """
        @param resume: seconds that the emulator takes to resume a machine.
        """
        self.fly = RunningEmulator(
            "tiny", resume=resume, suspend=REST, pull=REST, start=REST, unseen=0.0, volume=REST
        )
        self.fly.start()
        self.fly.ask("POST", "/v1/apps", {"name": APP, "org_slug": "personal"})
        self.matrix = SuppliedMatrix(
            idle=3600.0,
            provider="fly",
            fly_api=self.fly.url,
            fly_token=self.fly.token,
            fly_org="personal",
            fly_app=APP,
            fly_regions="fra",
            fly_image="registry.example/daemon:1",
        )
        self.matrix.start()
        self.names = [f"user{number}" for number in range(users)]
        self.tokens = {name: self.matrix.token(name) for name in self.names}
        self.ids = {name: self.matrix.user_id(name) for name in self.names}
        self.machines: dict[str, str] = {}
        self._populate()

    def close(self) -> None:
        """End everything."""
        try:
            self.matrix.close()
        finally:
            self.fly.close()

    # making

    def _populate(self) -> None:
        """Making a machine is limited to one a second, which is not what is measured."""
        self._limits("off")
        with ThreadPoolExecutor(HANDS) as hands:
            made = list(hands.map(self._make, self.names))
        self._limits("on")
        self.machines = dict(zip(self.names, made, strict=True))
        for name, machine_id in self.machines.items():
            self._write_down(name, machine_id)

    def _limits(self, word: str) -> None:
        self.fly.ask("POST", "/_emulator/settings", {"rate_limits": word})

    def _make(self, name: str) -> str:
        config = {
            "image": "registry.example/daemon:1",
            "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256},
            "services": [{"protocol": "tcp", "internal_port": PORT, "ports": []}],
            "metadata": {"matrix_user": self.ids[name]},
            "env": {"MATRIX_USER": self.ids[name]},
        }
        asked = {"name": f"test-{name}", "region": "fra", "config": config}
        made = self.fly.ask("POST", f"/v1/apps/{APP}/machines", asked)
        self.wait(made["id"], "started", made["instance_id"])
        self.answers(made["private_ip"])
        self.rest(made["id"], made["instance_id"])
        return str(made["id"])

    def _write_down(self, name: str, machine_id: str) -> None:
        user_id, email = self.ids[name], self.matrix.issuer().add_user(name).email
        self.matrix.sql(f"INSERT INTO users (id, email) VALUES ('{user_id}', '{email}')")
        self.matrix.sql(
            "INSERT INTO machines (user_id, provider, app, machine_id, region, state,"
            f" provision_step, boot_id) VALUES ('{user_id}', 'fly', '{APP}', '{machine_id}',"
            " 'fra', 'suspended', 'made', 'first')"
        )

    # machines, past the router

    def wait(self, machine_id: str, state: str, version: str) -> None:
        """Until Fly says that it is so."""
        path = f"{self.path(machine_id)}/wait?state={state}&timeout=60&version={version}"
        self.fly.ask("GET", path)

    def rest(self, machine_id: str, version: str) -> None:
        """Have it suspended, without the router."""
        self.fly.ask("POST", f"{self.path(machine_id)}/suspend")
        self.wait(machine_id, "suspended", version)

    def path(self, machine_id: str) -> str:
        """Of a machine in Fly's API."""
        return f"/v1/apps/{APP}/machines/{quote(machine_id)}"

    def answers(self, host: str) -> None:
        """Ask it until it answers; a machine that stands still keeps who asks waiting."""
        deadline = time.monotonic() + MADE_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError):
                connection = HTTPConnection(host, PORT, timeout=MADE_SECONDS)
                connection.request("GET", "/healthz")
                connection.getresponse().read()
                connection.close()
                return
            time.sleep(0.001)
        raise AssertionError(f"the machine at {host} does not answer")

    def raw(self, name: str) -> float:
        """
        Seconds that the same wake takes without any router: one start, and asking the machine.
        It sleeps again afterwards.
        """
        machine_id = self.machines[name]
        began = time.perf_counter()
        self.fly.ask("POST", f"{self.path(machine_id)}/start")
        machine = self.fly.ask("GET", self.path(machine_id))
        self.answers(machine["private_ip"])
        seconds = time.perf_counter() - began
        self.wait(machine_id, "started", machine["instance_id"])
        self.rest(machine_id, machine["instance_id"])
        return seconds

    # through the router

    def all_asleep(self) -> None:
        """Put all machines to sleep by the router, as an operator does."""
        with ThreadPoolExecutor(HANDS) as hands:
            paths = [f"users/{user_id}/suspend" for user_id in self.ids.values()]
            list(hands.map(lambda path: self.matrix.admin(path, "POST"), paths))

    # counting

    def forget_calls(self) -> None:
        """Count Fly's calls from here."""
        self.fly.ask("DELETE", "/_emulator/calls")

    def calls(self) -> Mapping[str, Any]:
        """What Fly was asked since then."""
        return self.fly.calls()

    def log_statements(self) -> None:
        """Have PostgreSQL log each statement."""
        execute("ALTER SYSTEM SET log_statement = 'all'")
        execute("SELECT pg_reload_conf()")
        time.sleep(0.5)  # every session hears of it between two statements
        self._read = len(self._log())

    def statements(self) -> list[str]:
        """What was logged since the last time, each by how it begins."""
        text = self._log()
        new, self._read = text[self._read :], len(text)
        found = [part.split("\n\n")[0] for part in new.split(STATEMENT)[1:]]
        return [" ".join(each.split())[:60] for each in found]

    def _log(self) -> str:
        return server().log.read_text("utf-8", "replace")
