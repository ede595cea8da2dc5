"""Tests for machines that are real processes. As root they have users of their own."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from matrix.errors import ConfigurationError
from matrix.machines import LocalProvider, ProviderError, Started
from matrix.model import Address, Machine, MachineState, UserId
from matrix.processes import Process, find, is_alive, signal_process, state
from matrix.testing.provider_suite import ProviderContract, somebody

PROGRAM = Path(__file__).with_name("machine_program.py").absolute()
COMMAND = shlex.join([sys.executable, str(PROGRAM)])
SOCKET_COMMAND = f"{COMMAND} {{socket}} {{data}} {{user}}"
PORT_COMMAND = f"{COMMAND} {{port}}"
ROOT = os.geteuid() == 0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("machine", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _get(address: Address, path: str) -> dict[str, Any]:
    """Ask a machine, as soon as it answers. Blocks."""
    deadline = time.monotonic() + 20
    while True:
        connection = (
            _UnixConnection(address.path)
            if address.path
            else http.client.HTTPConnection(address.host, address.port, timeout=10)
        )
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        finally:
            connection.close()


async def ask(started: Started, path: str) -> dict[str, Any]:
    """What a machine answers, once it does."""
    return await deferToThread(_get, started.address, path)


async def eventually(condition: Any, seconds: float = 10.0) -> None:
    """Return once C{condition()} is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        await deferLater(reactor, 0.01)


class LocalCase(TestCase):
    """A provider in a state directory of its own, and nothing left of both."""

    timeout = 60

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="matrix-test-"))
        self.directory.chmod(0o711)
        self.addCleanup(shutil.rmtree, self.directory)
        self.providers: list[LocalProvider] = []
        self.provider = self.successor()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.leave_nothing()))

    async def leave_nothing(self) -> None:
        """Stop everything before the directory goes (cleanups run in reverse order)."""
        leaders = self.leaders()
        last = self.successor()
        await last.close(stop_machines=True)
        for provider in self.providers:
            await provider.close(stop_machines=False)
        assert not any(map(is_alive, leaders))

    def successor(self, command: str | None = SOCKET_COMMAND, **options: Any) -> LocalProvider:
        options = {"grace": 1.0, **options}
        provider = LocalProvider(self.directory / "state", command, reactor, **options)
        self.providers.append(provider)
        return provider

    def home(self, machine: Machine) -> Path:
        return self.directory / "state" / "machines" / machine.user_id

    def leader(self, machine: Machine) -> Process:
        process = find(int((self.home(machine) / "pid").read_text().split()[0]))
        assert process is not None
        return process

    def leaders(self) -> list[Process]:
        files = self.directory.glob("state/machines/*/pid")
        found = [find(int(path.read_text().split()[0])) for path in files]
        return [process for process in found if process and process.pid != os.getpid()]

    async def booted(self, environment: Any = {}) -> tuple[Machine, Started]:  # noqa: B006
        machine = somebody()
        await self.provider.provision(machine)
        return machine, await self.provider.start(machine, environment)


class LocalContractTests(LocalCase, ProviderContract):
    """Real processes keep the contract."""

    async def kill(self, machine: Machine) -> None:
        signal_process(self.leader(machine), signal.SIGKILL)

    async def until_told(self, told: list[UserId]) -> None:
        await eventually(lambda: told)


class AddressTests(LocalCase):
    """Where a machine listens, and how it is told."""

    async def test_a_socket_is_given_and_answers(self) -> None:
        machine, started = await self.booted()
        report = await ask(started, "/report")
        data = str(self.home(machine) / "data")
        self.assertEqual(report["argv"], [started.address.path, data, machine.user_id])
        self.assertNotIn("PORT", report["environment"])

    async def test_a_port_is_given_by_place_and_by_environment(self) -> None:
        self.provider = self.successor(PORT_COMMAND)
        _, started = await self.booted()
        report = await ask(started, "/report")
        self.assertEqual(report["argv"], [str(started.address.port)])
        self.assertEqual(report["environment"]["PORT"], str(started.address.port))

    async def test_a_command_may_look_at_the_environment_alone(self) -> None:
        line = f'exec {shlex.quote(sys.executable)} {shlex.quote(str(PROGRAM))} "$PORT"'
        self.provider = self.successor(shlex.join(["/bin/sh", "-c", line]))
        _, started = await self.booted()
        report = await ask(started, "/report")
        self.assertEqual(report["argv"], [str(started.address.port)])

    async def test_a_path_too_long_for_a_socket_is_replaced_by_a_short_one(self) -> None:
        self.directory = self.directory / ("long" * 20)
        self.provider = self.successor()
        machine, started = await self.booted()
        assert (await ask(started, "/report"))["pid"]
        path = Path(str(started.address.path))
        self.assertLessEqual(len(str(path)), 107)
        self.assertEqual(path.parent.stat().st_mode & 0o777, 0o700)
        await self.provider.close(stop_machines=False)
        self.provider = self.successor()
        self.assertEqual((await self.provider.start(machine, {})).address, started.address)
        await self.provider.destroy(machine)
        self.assertFalse(path.parent.exists())

    async def test_a_stale_socket_is_in_nobodys_way(self) -> None:
        machine, _ = await self.booted()
        await ask(await self.provider.start(machine, {}), "/report")
        signal_process(self.leader(machine), signal.SIGKILL)
        await eventually(lambda: not is_alive(self.leader(machine)))
        again = await self.provider.start(machine, {})
        assert (await ask(again, "/report"))["pid"] == self.leader(machine).pid


class IsolationTests(LocalCase):
    """A machine sees what it needs, and no more."""

    async def test_the_environment_is_only_what_it_was_given(self) -> None:
        os.environ["MATRIX_DAEMON_TOKEN"] = "the fleet's master secret"
        self.addCleanup(os.environ.pop, "MATRIX_DAEMON_TOKEN")
        machine, started = await self.booted({"MATRIX_MACHINE_TOKEN": "its own"})
        environment = (await ask(started, "/report"))["environment"]
        self.assertEqual(environment["MATRIX_MACHINE_TOKEN"], "its own")
        self.assertEqual(environment["MATRIX_USER"], machine.user_id)
        self.assertEqual(environment["HOME"], str(self.home(machine) / "data"))
        allowed = {"HOME", "PATH", "LANG", "LC_CTYPE", "TZ", "MATRIX_USER", "MATRIX_MACHINE_ID"}
        self.assertEqual(set(environment) - allowed, {"MATRIX_MACHINE_TOKEN"})

    async def test_no_descriptor_is_inherited(self) -> None:
        with open(self.directory / "secret", "w+") as ours:
            os.set_inheritable(ours.fileno(), True)
            machine, started = await self.booted()
            report = await ask(started, "/report")
        log = str(self.home(machine) / "log")
        kept = [each for each in report["descriptors"] if not each.startswith(("socket:", "/proc"))]
        self.assertEqual(kept, ["/dev/null", log, log])
        self.assertEqual(report["umask"], 0o077)

    async def test_it_leads_a_session_of_its_own_in_its_data_directory(self) -> None:
        machine, started = await self.booted()
        report = await ask(started, "/report")
        self.assertEqual(report["session"], report["pid"])
        self.assertEqual(report["cwd"], str(self.home(machine) / "data"))
        self.assertIn("NoNewPrivs:\t1", report["status"])

    async def test_each_machine_has_a_user_and_no_privilege(self) -> None:
        self.needs_root()
        first, second = (await self.booted())[1], (await self.booted())[1]
        reports = [await ask(first, "/report"), await ask(second, "/report")]
        for report in reports:
            uids, gids, groups = report["ids"]
            self.assertEqual((len(set(uids)), len(set(gids)), groups), (1, 1, []))
            self.assertIn("CapEff:\t0000000000000000", report["status"])
        self.assertNotEqual(reports[0]["ids"], reports[1]["ids"])
        self.assertNotIn(0, reports[0]["ids"][0] + reports[1]["ids"][0])

    async def test_nothing_of_ours_or_of_others_can_be_read(self) -> None:
        self.needs_root()
        victim, _ = await self.booted({"SECRET": "x"})
        secret = self.home(victim) / "data" / "diary"
        secret.write_text("private")
        secret.chmod(0o644)
        intruder, started = await self.booted()
        await ask(started, "/report")
        theirs, own = self.home(victim), self.home(intruder)
        closed = [secret, theirs / "data", theirs / "run", theirs, theirs / "machine.json"]
        closed += [theirs / "log", own / "machine.json", own / "log", own, own.parent]
        closed += [own.parent / "uids", Path(f"/proc/{os.getpid()}/environ")]
        closed += [Path(f"/proc/{self.leader(victim).pid}/environ"), Path("/etc/shadow")]
        for path in closed:
            answer = await ask(started, "/read?path=" + quote(str(path)))
            self.assertEqual(answer, {"error": "PermissionError"}, path)
        answer = await ask(started, "/read?path=" + quote(str(own / "data")))
        self.assertEqual(answer, {"entries": []})

    async def test_a_closed_state_directory_is_opened_for_the_machine_alone(self) -> None:
        self.needs_root()
        self.directory.chmod(0o700)
        (self.directory / "router-secret").write_text("x")
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        machine, started = await self.booted()
        answer = await ask(started, "/read?path=" + quote(str(self.directory)))
        self.assertEqual(answer, {"entries": ["state"]})
        data = self.home(machine) / "data"
        answer = await ask(started, "/read?path=" + quote(str(data.parent.parent)))
        self.assertEqual(answer, {"entries": [machine.user_id]})

    def needs_root(self) -> None:
        if not ROOT:
            raise SkipTest("only root can give machines users of their own")


class EndingTests(LocalCase):
    """Nobody escapes."""

    async def test_a_process_that_hid_is_frozen_thawed_and_ended(self) -> None:
        machine, started = await self.booted()
        hidden = find((await ask(started, "/hide"))["pid"])
        assert hidden is not None
        await self.provider.suspend(machine)
        self.assertEqual((state(self.leader(machine)), state(hidden)), ("T", "T"))
        await self.provider.start(machine, {})
        self.assertNotIn("T", (state(self.leader(machine)), state(hidden)))
        await self.provider.suspend(machine)
        await self.provider.stop(machine)
        self.assertFalse(is_alive(hidden))

    async def test_left_overs_of_a_dead_machine_end_before_the_next_boot(self) -> None:
        machine, started = await self.booted()
        hidden = find((await ask(started, "/hide"))["pid"])
        assert hidden is not None
        signal_process(self.leader(machine), signal.SIGKILL)
        await eventually(lambda: not is_alive(self.leader(machine)))
        self.assertTrue(is_alive(hidden))
        await self.provider.start(machine, {})
        self.assertFalse(is_alive(hidden))

    async def test_destroying_deletes_closed_directories_too(self) -> None:
        machine, _ = await self.booted()
        closed = self.home(machine) / "data" / "closed"
        (closed / "inner").mkdir(parents=True)
        (closed / "inner" / "file").write_text("x")
        closed.chmod(0o000)
        await self.provider.destroy(machine)
        left = {path.name for path in self.home(machine).parent.iterdir()}
        self.assertEqual(left, {"uids"} if ROOT else set())

    async def test_other_machines_are_left_alone(self) -> None:
        machine, _ = await self.booted()
        other, _ = await self.booted()
        await self.provider.suspend(machine)
        self.assertNotEqual(state(self.leader(other)), "T")
        await self.provider.destroy(machine)
        self.assertTrue(is_alive(self.leader(other)))

    async def test_all_are_stopped_at_once(self) -> None:
        self.provider = self.successor("/bin/sh -c 'trap \"\" TERM; sleep 60 & wait; wait'")
        machines = [(await self.booted())[0] for _ in range(4)]
        leaders = [self.leader(machine) for machine in machines]
        began = time.monotonic()
        await self.provider.close(stop_machines=True)
        self.assertLess(time.monotonic() - began, 3.0)
        self.assertEqual([process for process in leaders if is_alive(process)], [])


class CrashTests(LocalCase):
    """Whatever becomes of us, the next provider goes on from there."""

    async def test_a_boot_whose_caller_left_is_not_repeated(self) -> None:
        machine = somebody()
        await self.provider.provision(machine)
        impatient = Deferred.fromCoroutine(self.provider.start(machine, {}))
        await deferLater(reactor, 0.005)
        impatient.cancel()
        with self.assertRaises(CancelledError):
            await impatient
        started = await self.provider.start(machine, {})
        self.assertEqual(started.was, MachineState.RUNNING)
        self.assertEqual((await ask(started, "/report"))["pid"], self.leader(machine).pid)

    async def test_two_providers_at_once_boot_once(self) -> None:
        other = self.successor()
        machine = somebody()
        both = [self.provider, other]
        ids = await gatherResults(
            [Deferred.fromCoroutine(each.provision(machine)) for each in both]
        )
        self.assertEqual(len(set(ids)), 1)
        results = await gatherResults(
            [Deferred.fromCoroutine(each.start(machine, {})) for each in both]
        )
        self.assertEqual(len({each.boot_id for each in results}), 1)
        self.assertEqual(
            {each.was for each in results}, {MachineState.PROVISIONING, MachineState.RUNNING}
        )

    async def test_a_half_frozen_machine_is_thawed_by_the_next_start(self) -> None:
        machine, started = await self.booted()
        hidden = find((await ask(started, "/hide"))["pid"])
        assert hidden is not None
        signal_process(self.leader(machine), signal.SIGSTOP)
        self.provider = self.successor()
        again = await self.provider.start(machine, {})
        self.assertEqual((again.was, again.boot_id), (MachineState.SUSPENDED, started.boot_id))
        self.assertNotEqual(state(self.leader(machine)), "T")

    async def test_a_pid_of_before_the_hosts_last_boot_is_nobodys(self) -> None:
        machine, _ = await self.booted()
        await self.provider.stop(machine)
        ourselves = find(os.getpid())
        assert ourselves is not None
        pid_file = self.home(machine) / "pid"
        pid_file.write_text(f"{ourselves.pid} {ourselves.started} another-boot\n")
        self.assertEqual((await self.provider.inspect(machine)).state, MachineState.STOPPED)

    async def test_a_recycled_pid_is_nobodys(self) -> None:
        machine, _ = await self.booted()
        await self.provider.stop(machine)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        (self.home(machine) / "pid").write_text(f"{os.getpid()} 1 {boot}")
        self.assertEqual((await self.provider.inspect(machine)).state, MachineState.STOPPED)
        await self.provider.stop(machine)

    async def test_lost_data_are_a_lost_machine_and_can_be_made_anew(self) -> None:
        machine, _ = await self.booted()
        await self.provider.stop(machine)
        shutil.rmtree(self.home(machine) / "data")
        self.assertEqual((await self.provider.inspect(machine)).state, MachineState.LOST)
        await self.provider.provision(machine)
        again = await self.provider.start(machine, {})
        self.assertEqual(again.was, MachineState.PROVISIONING)

    async def test_a_damaged_record_is_named(self) -> None:
        machine, _ = await self.booted()
        await self.provider.stop(machine)
        (self.home(machine) / "machine.json").write_text("{")
        with self.assertRaisesRegex(ProviderError, "machine.json is damaged"):
            await self.provider.start(machine, {})


class RefusalTests(LocalCase):
    """What cannot be is said clearly."""

    async def test_a_program_that_is_not_there(self) -> None:
        self.provider = self.successor("/nowhere/server {port}")
        with self.assertRaisesRegex(ProviderError, "cannot start /nowhere/server: there is no"):
            await self.booted()
        self.assertEqual(self.leaders(), [])

    async def test_a_program_that_ends_at_once_is_told_as_a_death(self) -> None:
        self.provider = self.successor("/bin/true")
        told: list[UserId] = []
        self.provider.watch(told.append)
        machine, _ = await self.booted()
        await eventually(lambda: told)
        self.assertEqual(told, [machine.user_id])

    async def test_output_is_in_the_log_for_root_alone(self) -> None:
        machine, started = await self.booted()
        await ask(started, "/report")
        log = self.home(machine) / "log"
        self.assertIn("machine listens on", log.read_text())
        self.assertEqual(log.stat().st_mode & 0o777, 0o600)

    def test_a_state_directory_that_cannot_be(self) -> None:
        (self.directory / "file").write_text("")
        with self.assertRaisesRegex(ConfigurationError, "MATRIX_STATE_DIR"):
            LocalProvider(self.directory / "file", None, reactor)

    def test_an_unknown_place(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, r"\{path\} is unknown"):
            self.successor("serve {path}")
