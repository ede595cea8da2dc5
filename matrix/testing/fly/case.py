"""A test with an emulated Fly of its own: no socket, no process, and time that is moved by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.testing.fly.addresses import Addresses
from matrix.testing.fly.api import Answer, Asked
from matrix.testing.fly.emulator import TOKEN, Parts
from matrix.testing.fly.memory_programs import MemoryPrograms
from matrix.testing.fly.tuning import Tuning
from matrix.testing.scratch import scratch

START = 1_800_000_000.0
"""The Unix time at which tests begin."""

CONFIG: Mapping[str, Any] = {
    "image": "registry.example/daemon:1",
    "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256},
    "services": [{"protocol": "tcp", "internal_port": 8080, "autostop": "off"}],
}


class FlyCase(SynchronousTestCase):
    """With an app, C{users}; rate limits are off, and machines are seen at once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.programs = MemoryPrograms()
        self.tuning = Tuning()
        self.tuning.set("rate_limits", "off")
        self.tuning.set("unseen", "0")
        self.directory = scratch(self)
        self.parts = self.made()
        self.ok("POST", "/apps", {"name": "users", "org_slug": "personal"}, status=201)

    def made(self, **options: Any) -> Parts:
        """An emulator of this test's directory."""
        addresses = Addresses("test", free=lambda address, port: True)
        parts = Parts(
            self.clock,
            self.directory,
            self.programs,
            now=self.now,
            tuning=self.tuning,
            addresses=addresses,
            **options,
        )
        self.addCleanup(parts.close)
        return parts

    def again(self) -> None:
        """The emulator is killed, and another one started in its place."""
        self.parts.close()
        self.parts = self.made()

    def now(self) -> float:
        """The Unix time."""
        return START + self.clock.seconds()

    def begin(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        nonce: str | None = None,
        token: str = TOKEN,
        query: Mapping[str, Any] | None = None,
    ) -> Deferred[Answer]:
        """Make a call, below C{/v1}."""
        text = urlencode(query or {}, doseq=True)
        sent = b"" if body is None else json.dumps(body).encode()
        asked = Asked(method, "/v1" + path, text, f"Bearer {token}", nonce, sent)
        return Deferred.fromCoroutine(self.parts.api.answer(asked))

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """L{begin}, of what is answered at once."""
        return self.successResultOf(self.begin(method, path, body, **options))

    def ok(
        self, method: str, path: str, body: Any = None, status: int = 200, **options: Any
    ) -> Any:
        """What is answered to a call that succeeds."""
        answer = self.call(method, path, body, **options)
        assert answer.status == status, answer.value
        return answer.value

    def refused(
        self, status: int, text: str, method: str, path: str, body: Any = None, **options: Any
    ) -> None:
        """The call is refused, with a text that has C{text} in it."""
        answer = self.call(method, path, body, **options)
        assert answer.status == status, answer.value
        assert text in answer.value["error"], answer.value

    def volume(self, **members: Any) -> str:
        """The id of a new volume that is ready."""
        body = {"name": "data", "region": "fra", "size_gb": 1, **members}
        volume = self.ok("POST", "/apps/users/volumes", body)
        self.clock.advance(self.tuning.timings.volume.high + 0.01)
        return str(volume["id"])

    def created(self, **members: Any) -> str:
        """The id of a machine whose image is still being prepared."""
        config = {**CONFIG, **members.pop("config", {})}
        body = {"region": "fra", "config": config, **members}
        return str(self.ok("POST", "/apps/users/machines", body)["id"])

    def started(self, **members: Any) -> str:
        """The id of a machine that runs."""
        machine = self.created(**members)
        self.pass_time()
        assert self.state(machine) == "started"
        return machine

    def suspended(self, **members: Any) -> str:
        """The id of a machine that stands still."""
        machine = self.started(**members)
        self.power(machine, "suspend")
        self.pass_time()
        assert self.state(machine) == "suspended"
        return machine

    def stopped(self, **members: Any) -> str:
        """The id of a machine that was stopped a while ago."""
        machine = self.started(**members)
        self.power(machine, "stop", {})
        self.pass_time()
        assert self.state(machine) == "stopped"
        return machine

    def pass_time(self) -> None:
        """Longer than anything takes that happens to machines in one go."""
        self.clock.pump([0.1] * 40)

    def power(self, machine: str, what: str, body: Any = None, **options: Any) -> Any:
        """Start, stop, suspend and the like."""
        return self.ok("POST", f"/apps/users/machines/{machine}/{what}", body, **options)

    def get(self, machine: str) -> dict[str, Any]:
        """A machine as Fly shows it."""
        shown: dict[str, Any] = self.ok("GET", f"/apps/users/machines/{machine}")
        return shown

    def state(self, machine: str) -> str:
        """Its state."""
        return str(self.get(machine)["state"])

    def emulator(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """What the control API answers."""
        path, _, query = path.partition("?")
        sent = b"" if body is None else json.dumps(body).encode()
        asked = Asked(method, "/_emulator" + path, query, body=sent)
        answer = self.successResultOf(Deferred.fromCoroutine(self.parts.control.answer(asked)))
        assert answer.status == status, answer.value
        return answer.value
