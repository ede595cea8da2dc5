"""The Fly emulator over real HTTP, its machines real processes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web._newclient import ResponseFailed, ResponseNeverReceived
from twisted.web.client import Agent, HTTPConnectionPool

from matrix.errors import ConfigurationError
from matrix.machines._flytoml import read
from matrix.machines._plan import plan
from matrix.machines._template import fill
from matrix.processes import Process, find, is_alive, signal_process, state
from matrix.testing.fly.answers import WrongAnswer
from matrix.testing.fly.emulator import TOKEN, FlyEmulator
from matrix.testing.fly.running import RunningEmulator
from matrix.testing.fly.tuning import Tuning
from matrix.testing.scratch import scratch

CONFIG = {"image": "registry.example/daemon:1", "services": [{"internal_port": 8080}]}
QUICK = {"unseen": "0", "pull": "0", "start": "0", "suspend": "0.05", "resume": "0.05",
         "stop": "0", "still_active": "0", "destroy": "0", "replace": "0", "volume": "0",
         "rate_limits": "off"}  # fmt: skip
TEMPLATE = Path(__file__).parents[2] / "deploy" / "daemon" / "fly.toml.tmpl"
LONG = 20.0
"""Seconds within which anything happens, on a host that does much else."""
LOST = (ResponseNeverReceived, ResponseFailed, ConnectionLost, ConnectionDone)


def alive(pid: int) -> bool:
    """Whether there is such a process; one that only waits to be reaped is none."""
    process = find(pid)
    return process is not None and is_alive(process)


class FlyProcessCase(TestCase):
    """A client of an emulator, wherever that runs."""

    url: str

    def client(self) -> HTTPClient:
        return HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))

    async def call(
        self, method: str, path: str, body: Any = None, token: str = TOKEN
    ) -> tuple[int, Any]:
        prefix = "" if path.startswith("/_emulator") else "/v1"
        response = await self.client().request(
            method,
            self.url + prefix + path,
            headers={"authorization": f"Bearer {token}"},
            timeout=LONG,
            **({} if body is None else {"json": body}),
        )
        content = await response.content()
        return response.code, json.loads(content) if content else None

    async def ok(self, method: str, path: str, body: Any = None) -> Any:
        status, value = await self.call(method, path, body)
        self.assertLess(status, 300, value)
        return value

    async def machine(self, config: Any = None, **members: Any) -> Any:
        """One that runs and listens."""
        body = {"region": "fra", "config": {**CONFIG, **(config or {})}, **members}
        machine = await self.ok("POST", "/apps/users/machines", body)
        await self.reach(machine["id"], "started")
        await self.ask(machine)
        return machine

    async def reach(self, machine_id: str, wanted: str) -> None:
        path = f"/apps/users/machines/{machine_id}"
        version = (await self.ok("GET", path))["instance_id"]
        await self.ok("GET", f"{path}/wait?state={wanted}&timeout=20&version={version}")

    async def power(self, machine: Any, what: str, wanted: str) -> Any:
        answer = await self.ok("POST", f"/apps/users/machines/{machine['id']}/{what}")
        await self.reach(machine["id"], wanted)
        return answer

    async def ask(
        self, machine: Any, path: str = "/", method: str = "GET", data: bytes | None = None
    ) -> Any:
        """What a machine's program answers, once it listens."""
        url = f"http://{machine['private_ip']}:8080{path}"
        deadline = time.monotonic() + LONG
        while True:
            try:
                response = await self.client().request(method, url, data=data, timeout=LONG)
                return json.loads(await response.content())
            except ConnectError:
                if time.monotonic() > deadline:
                    raise
                await deferLater(reactor, 0.02)

    async def until(self, check: Any) -> None:
        deadline = time.monotonic() + LONG
        while not check():
            self.assertLess(time.monotonic(), deadline)
            await deferLater(reactor, 0.02)


class EmulatorTests(FlyProcessCase):
    """In this process."""

    async def setUp(self) -> None:
        self.directory = scratch(self)
        self.addCleanup(self.put_away)
        self.open()
        await self.ok("POST", "/apps", {"name": "users", "org_slug": "personal"})

    def open(self, program: str = "tiny") -> None:
        tuning = Tuning()
        for name, value in QUICK.items():
            tuning.set(name, value)
        self.emulator = FlyEmulator(reactor, self.directory, program, tuning=tuning)
        self.url = self.emulator.listen()

    async def put_away(self) -> None:
        await self.emulator.close()

    async def volume(self) -> str:
        body = {"name": "data", "region": "fra", "size_gb": 1}
        return str((await self.ok("POST", "/apps/users/volumes", body))["id"])

    async def test_a_suspended_process_stands_still_and_goes_on_where_it_was(self) -> None:
        machine = await self.machine()
        first = await self.ask(machine)
        self.assertEqual(first["machine"], machine["id"])
        await self.power(machine, "suspend", "suspended")
        process = find(first["pid"])
        assert process is not None
        self.assertEqual(state(process), "T")
        answer = await self.power(machine, "start", "started")
        self.assertEqual(answer["previous_state"], "suspended")
        again = await self.ask(machine)
        self.assertEqual((again["pid"], again["boots"], again["requests"]), (first["pid"], 1, 3))

    async def test_lost_memory_is_a_cold_boot(self) -> None:
        volume = await self.volume()
        machine = await self.machine({"mounts": [{"volume": volume, "path": "/data"}]})
        await self.ask(machine, "/files/note", "PUT", b"kept")
        first = await self.ask(machine)
        await self.power(machine, "suspend", "suspended")
        await self.ok("POST", f"/_emulator/machines/{machine['id']}/lose-snapshot")
        answer = await self.power(machine, "start", "started")
        self.assertEqual(answer["previous_state"], "suspended")
        again = await self.ask(machine)
        self.assertNotEqual(again["pid"], first["pid"])
        self.assertEqual((again["boots"], again["requests"]), (2, 1))
        self.assertEqual(await self.ask(machine, "/files/note"), {"content": "kept"})
        self.assertFalse(alive(first["pid"]))

    async def test_without_a_volume_a_stop_resets_what_was_written(self) -> None:
        machine = await self.machine({"env": {"A": "b"}})
        self.assertEqual((await self.ask(machine, "/environment"))["A"], "b")
        await self.ask(machine, "/files/note", "PUT", b"x")
        await self.power(machine, "stop", "stopped")
        await self.power(machine, "start", "started")
        self.assertEqual(await self.ask(machine, "/files/note"), {})

    async def test_a_stop_is_the_signal_and_then_the_end(self) -> None:
        config = {"stop_config": {"signal": "SIGHUP", "timeout": "300ms"}}
        await self.emulator.close()
        self.open(
            f"{sys.executable} -c 'import signal, time; "
            "signal.signal(signal.SIGHUP, signal.SIG_IGN); time.sleep(600)'"
        )
        body = {"config": {**CONFIG, **config}}
        machine = await self.ok("POST", "/apps/users/machines", body)
        await self.reach(machine["id"], "started")
        pid = (await self.ok("GET", "/_emulator/processes"))[machine["id"]]
        await deferLater(reactor, 0.3)  # until it ignores the signal
        began = time.monotonic()
        await self.power(machine, "stop", "stopped")
        self.assertGreater(time.monotonic() - began, 0.25)
        self.assertFalse(alive(pid))

    async def parent(self, command: str) -> tuple[dict[str, Any], Process]:
        """A machine with this command, which notes the id of its child; that child."""
        await self.emulator.close()
        self.open(command)
        machine = await self.ok("POST", "/apps/users/machines", {"config": CONFIG})
        await self.reach(machine["id"], "started")
        note = self.directory / "machines" / machine["id"] / "root" / "child"
        await self.until(lambda: note.exists() and note.read_text().endswith("\n"))
        child = find(int(note.read_text()))
        assert child is not None
        return machine, child

    async def test_its_children_stand_still_and_end_with_it(self) -> None:
        machine, child = await self.parent(
            "sh -c 'sleep 600 & echo $! > {data}/child; exec sleep 601'"
        )
        await self.power(machine, "suspend", "suspended")
        self.assertEqual(state(child), "T")
        await self.power(machine, "start", "started")
        self.assertIn(state(child), ("R", "S"))
        await self.power(machine, "stop", "stopped")
        self.assertFalse(is_alive(child))

    async def test_a_child_that_left_its_session_stands_still_with_it(self) -> None:
        machine, child = await self.parent(
            "sh -c 'setsid sleep 600 & echo $! > {data}/child; wait'"
        )
        self.addCleanup(signal_process, child, signal.SIGKILL)
        await self.until(lambda: os.getsid(child.pid) == child.pid)
        await self.power(machine, "suspend", "suspended")
        self.assertEqual(state(child), "T")
        await self.power(machine, "start", "started")
        self.assertIn(state(child), ("R", "S"))

    async def test_a_destruction_does_not_wait_for_the_grace_of_a_stop(self) -> None:
        await self.emulator.close()
        self.open(
            f"{sys.executable} -c 'import signal, time; "
            "signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)'"
        )
        config = {**CONFIG, "stop_config": {"timeout": "60s"}}
        machine = await self.ok("POST", "/apps/users/machines", {"config": config})
        await self.reach(machine["id"], "started")
        pid = (await self.ok("GET", "/_emulator/processes"))[machine["id"]]
        await deferLater(reactor, 0.3)  # until it ignores the signal
        path = f"/apps/users/machines/{machine['id']}"
        await self.ok("POST", f"{path}/stop")
        await deferLater(reactor, 0.2)
        self.assertTrue(alive(pid))
        await self.ok("DELETE", f"{path}?force=true")
        await self.ok("GET", f"{path}/wait?state=destroyed&timeout=20")
        self.assertFalse(alive(pid))

    async def test_a_program_that_crashes_is_booted_again(self) -> None:
        machine = await self.machine()
        first = await self.ask(machine)
        os.kill(first["pid"], signal.SIGKILL)
        await self.until(lambda: not alive(first["pid"]))
        await self.reach(machine["id"], "started")
        self.assertNotEqual((await self.ask(machine))["pid"], first["pid"])
        events = await self.ok("GET", f"/apps/users/machines/{machine['id']}/events")
        self.assertIn("exit", [event["type"] for event in events])

    async def test_a_migrated_machine_answers_at_its_new_address_with_its_data(self) -> None:
        volume = await self.volume()
        machine = await self.machine({"mounts": [{"volume": volume, "path": "/data"}]})
        await self.ask(machine, "/files/note", "PUT", b"kept")
        moved = await self.ok("POST", f"/_emulator/machines/{machine['id']}/migrate")
        await self.reach(machine["id"], "started")
        self.assertEqual(await self.ask(moved, "/files/note"), {"content": "kept"})
        with self.assertRaises(ConnectError):
            await self.client().get(f"http://{machine['private_ip']}:8080/")

    async def test_a_lost_answer_is_a_closed_connection(self) -> None:
        machine = await self.machine()
        path = f"/apps/users/machines/{machine['id']}"
        for kind, wanted in (("before", "started"), ("lost", "suspended")):
            fault = {"kind": kind, "action": "machines.suspend", "times": 1}
            await self.ok("POST", "/_emulator/faults", fault)
            with self.assertRaises(LOST):
                await self.call("POST", f"{path}/suspend")
            await self.reach(machine["id"], wanted)

    async def test_whoever_hangs_up_waits_no_more(self) -> None:
        body = {"config": CONFIG, "skip_launch": True}
        machine = await self.ok("POST", "/apps/users/machines", body)
        path = f"{self.url}/v1/apps/users/machines/{machine['id']}/wait"
        headers = {"authorization": f"Bearer {TOKEN}"}
        waiting = self.client().get(path, headers=headers, timeout=0.3)
        world = self.emulator.parts.world
        await self.until(lambda: len(world.waits) == 1)
        await waiting.addErrback(lambda failure: None)
        await self.until(lambda: len(world.waits) == 0)

    async def test_rate_limits_and_tokens_over_http(self) -> None:
        self.emulator.parts.world.tuning.set("rate_limits", "on")
        statuses = [(await self.call("GET", "/platform/regions"))[0] for _ in range(4)]
        self.assertEqual(statuses, [200, 200, 200, 429])
        self.assertEqual((await self.call("GET", "/apps/users", token="x"))[0], 401)

    async def test_an_answer_that_is_none_of_flys_fails_the_test(self) -> None:
        machine = await self.machine()
        self.emulator.parts.world.machines[machine["id"]].region = 7  # type: ignore[assignment]
        status, value = await self.call("GET", f"/apps/users/machines/{machine['id']}")
        self.assertEqual(status, 500)
        self.assertIn("region: 7 is not of type 'string'", value["error"])
        self.assertEqual(len(self.flushLoggedErrors(WrongAnswer)), 1)

    async def test_the_next_emulator_finds_what_runs(self) -> None:
        machine, other = await self.machine(name="one"), await self.machine()
        await self.power(other, "suspend", "suspended")
        first = await self.ask(machine)
        await self.emulator.close(end_machines=False)
        self.open()
        shown = await self.ok("GET", f"/apps/users/machines/{machine['id']}")
        self.assertEqual((shown["state"], shown["name"]), ("started", "one"))
        self.assertEqual((await self.ask(machine))["pid"], first["pid"])
        await self.power(other, "start", "started")
        self.assertEqual((await self.ask(other))["boots"], 1)

    async def test_a_directory_that_cannot_be_used(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "/dev/null/x cannot be used"):
            FlyEmulator(reactor, Path("/dev/null/x"))

    async def test_two_at_once_in_one_directory_are_refused(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "another emulator runs"):
            FlyEmulator(reactor, self.directory)

    async def test_nothing_runs_on_when_it_is_closed(self) -> None:
        machines = await gatherResults([Deferred.fromCoroutine(self.machine()) for _ in range(5)])
        pids = [(await self.ask(machine))["pid"] for machine in machines]
        await self.emulator.close()
        self.assertEqual([pid for pid in pids if alive(pid)], [])
        self.open()
        await gatherResults(
            [Deferred.fromCoroutine(self.reach(machine["id"], "started")) for machine in machines]
        )

    async def test_our_daemon_as_the_template_has_it(self) -> None:
        await self.emulator.close()
        self.open("daemon")
        values = {"APP": "users", "REGION": "fra", "IMAGE": "daemon:1", "USER": "alice",
                  "MACHINE_TOKEN": "secret"}  # fmt: skip
        wanted = plan(read(fill(TEMPLATE.read_text(), values, "template"), "template"))
        body = wanted.volume.request("fra", wanted.guest)
        volume = (await self.ok("POST", "/apps/users/volumes", body))["id"]
        body = {"region": "fra", "config": wanted.config(volume)}
        machine = await self.ok("POST", "/apps/users/machines", body)
        await self.reach(machine["id"], "started")
        await self.ask(machine, "/healthz")
        self.assertTrue((self.directory / "volumes" / volume / "data" / "workspace").is_dir())


class TwistdTests(FlyProcessCase):
    """As C{twistd matrix-fly}."""

    def setUp(self) -> None:
        self.emulator = RunningEmulator("tiny", "--check-answers", **QUICK)
        self.addCleanup(self.emulator.close)
        self.url = self.emulator.start().url

    async def test_killed_and_started_again(self) -> None:
        await self.ok("POST", "/apps", {"name": "users", "org_slug": "personal"})
        machine, sleeper = await self.machine(), await self.machine()
        await self.power(sleeper, "suspend", "suspended")
        first = await self.ask(machine)
        calls = [
            Deferred.fromCoroutine(self.call("POST", "/apps/users/machines", {"config": CONFIG}))
            for _ in range(8)
        ]
        for call in calls:
            call.addErrback(lambda failure: None)
        await deferLater(reactor, 0.05)
        self.emulator.kill()
        await gatherResults(calls)
        self.emulator.start()
        self.assertEqual(self.emulator.url, self.url)
        self.assertEqual((await self.ask(machine))["pid"], first["pid"])
        await self.power(sleeper, "start", "started")
        self.assertEqual((await self.ask(sleeper))["boots"], 1)
        machines = await self.ok("GET", "/apps/users/machines")
        for shown in machines:
            await self.reach(shown["id"], "started")
            self.assertEqual((await self.ask(shown))["machine"], shown["id"])
        pids = [(await self.ask(shown))["pid"] for shown in machines]
        self.emulator.stop()
        self.assertEqual([pid for pid in pids if alive(pid)], [])

    async def test_nothing_is_left_of_one_that_was_killed(self) -> None:
        await self.ok("POST", "/apps", {"name": "users", "org_slug": "personal"})
        machine = await self.machine()
        pid = (await self.ask(machine))["pid"]
        self.emulator.kill()
        self.assertTrue(alive(pid))
        self.emulator.close()
        await self.until(lambda: not alive(pid))
        self.assertFalse(self.emulator.home.exists())
        self.emulator.home.mkdir()  # for the clean-up

    def test_counts_and_faults_from_a_program_without_a_reactor(self) -> None:
        self.emulator.fault("status", status=500, action="regions.list", times=1)
        with self.assertRaisesRegex(AssertionError, "500"):
            self.emulator.ask("GET", "/v1/platform/regions")
        self.emulator.ask("GET", "/v1/platform/regions")
        calls = self.emulator.calls(action="regions.list")
        self.assertEqual([call["status"] for call in calls["calls"]], [500, 200])

    def test_a_port_that_is_taken_ends_it_with_one_line(self) -> None:
        other = RunningEmulator("tiny", "--listen", urlsplit(self.url).netloc)
        self.addCleanup(other.close)
        with self.assertRaisesRegex(AssertionError, "matrix: cannot listen: .*in use"):
            other.start()
