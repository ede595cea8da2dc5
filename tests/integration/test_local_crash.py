"""Tests that machines survive whatever becomes of the router, and are never doubled."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from matrix.machines import ProviderError
from matrix.model import Machine, MachineState
from matrix.processes import (
    find,
    marked_members,
    signal_process,
    state,
)
from matrix.testing.local_machines import (
    SOCKET_COMMAND,
    LocalCase,
    ask,
)
from matrix.testing.provider_suite import made, somebody


class Case(LocalCase):
    reactor = reactor


class CrashTests(Case):
    """Whatever becomes of us, the next provider goes on from there."""

    async def test_a_boot_whose_caller_left_is_not_repeated(self) -> None:
        machine = await made(self.provider, somebody())
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
        machines = await gatherResults(
            [Deferred.fromCoroutine(made(each, machine)) for each in both]
        )
        self.assertEqual(len({each.machine_id for each in machines}), 1)
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
        await self.eventually(lambda: state(self.leader(machine)) == "T")
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
        await made(self.provider, machine)
        again = await self.provider.start(machine, {})
        self.assertEqual(again.was, MachineState.PROVISIONING)

    async def test_a_damaged_record_is_named(self) -> None:
        machine, _ = await self.booted()
        await self.provider.stop(machine)
        (self.home(machine) / "machine.json").write_text("{")
        with self.assertRaisesRegex(ProviderError, "machine.json is damaged"):
            await self.provider.start(machine, {})


ROUTER = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from matrix.machines import LocalProvider
from matrix.model import Machine, MachineState, UserId
from matrix.testing.provider_suite import made

provider = LocalProvider(Path(sys.argv[1]), sys.argv[2], reactor)

async def go():
    for name in sys.argv[3:]:
        machine = Machine(UserId(name), "local", MachineState.PROVISIONING, 1)
        await made(provider, machine)
        print("starting", flush=True)
        await provider.start(machine, {})

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(go()))
reactor.run()
"""


class KilledRouterTests(Case):
    """A router that is killed at any moment of a boot."""

    def killed(self, machine: Machine, delay: float) -> None:
        """Run a router that boots a machine, and kill it C{delay} seconds into that."""
        command = [sys.executable, "-c", ROUTER, str(self.directory / "state"), SOCKET_COMMAND]
        with subprocess.Popen([*command, machine.user_id], stdout=subprocess.PIPE) as router:
            assert router.stdout is not None
            router.stdout.readline()
            time.sleep(delay)
            router.kill()

    async def test_the_next_one_has_one_machine_of_it(self) -> None:
        for milliseconds in (0, 3, 8, 15, 25, 40, 70):
            machine = somebody()
            await deferToThread(self.killed, machine, milliseconds / 1000)
            started = await self.provider.start(machine, {})
            report = await ask(started, "/report")
            self.assertEqual(report["pid"], self.leader(machine).pid)
            mark = f"MATRIX_MACHINE_ID={report['environment']['MATRIX_MACHINE_ID']}"
            self.assertEqual(marked_members(mark), [self.leader(machine)])
