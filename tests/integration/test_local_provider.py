"""Tests for machines that are real processes. As root they have users of their own."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from urllib.parse import quote

from twisted.internet import reactor

from matrix.errors import ConfigurationError
from matrix.machines import LocalProvider, ProviderError, Stranded
from matrix.model import Machine, MachineState, UserId
from matrix.processes import find, is_alive, signal_process, state
from matrix.testing.local_machines import (
    PORT_COMMAND,
    PROGRAM,
    ROOT,
    LocalCase,
    ask,
)
from matrix.testing.provider_suite import Row, TellsDeaths, made


class Case(LocalCase):
    reactor = reactor


class LocalContractTests(Case, TellsDeaths):
    """Real processes keep the contract."""

    async def kill(self, machine: Machine) -> None:
        signal_process(self.leader(machine), signal.SIGKILL)

    async def until_told(self, told: list[UserId]) -> None:
        await self.eventually(lambda: told)


class AddressTests(Case):
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
        await self.eventually(lambda: not is_alive(self.leader(machine)))
        again = await self.provider.start(machine, {})
        assert (await ask(again, "/report"))["pid"] == self.leader(machine).pid


class IsolationTests(Case):
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


class EndingTests(Case):
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
        await self.eventually(lambda: not is_alive(self.leader(machine)))
        self.assertTrue(is_alive(hidden))
        await self.provider.start(machine, {})
        self.assertFalse(is_alive(hidden))

    async def test_what_outlived_its_data_ends_before_the_machine_is_made_anew(self) -> None:
        machine, _ = await self.booted()
        old = self.leader(machine)
        await self.provider.suspend(machine)
        shutil.rmtree(self.home(machine) / "data")
        again = await made(self.provider, machine)
        self.assertFalse(is_alive(old))
        started = await self.provider.start(again, {})
        self.assertIs(started.was, MachineState.PROVISIONING)

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


class RefusalTests(Case):
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
        await self.eventually(lambda: told)
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


class DefaultCommandTests(Case):
    """Without a command, a machine is our daemon."""

    async def test_our_daemon_answers_and_writes_only_its_data(self) -> None:
        self.provider = self.successor(None)
        machine, started = await self.booted({"MATRIX_MACHINE_TOKEN": "m" * 43})
        self.assertEqual((await ask(started, "/healthz"))["status"], "ok")
        left = {path.name for path in self.home(machine).iterdir()}
        self.assertEqual(left - {"run"}, {"data", "log", "machine.json", "pid"})
        self.assertEqual(list((self.home(machine) / "data").glob("*.pid")), [])


class MovingTests(Case):
    """There is one place for all; but one may begin anew in it."""

    async def begin_anew(self, row: Row) -> None:
        row.machine = await row.keep(
            machine_id=await self.provider.relocate(row.machine, {}, row.keep, fresh=True)
        )

    async def test_data_are_set_aside_until_it_answers(self) -> None:
        machine, _ = await self.booted()
        data, former = self.home(machine) / "data", self.home(machine) / "former"
        (data / "closed").mkdir(mode=0)
        (data / "old").write_text("what there was")
        row = Row(machine)
        await self.begin_anew(row)
        self.assertTrue(row.machine.on_trial)
        self.assertEqual(list(data.iterdir()), [])
        self.assertEqual((former / "old").read_text(), "what there was")
        self.assertEqual(data.stat().st_uid, former.stat().st_uid)

        (data / "half").write_text("of a restore that was broken off")
        await self.begin_anew(row)
        self.assertEqual(list(data.iterdir()), [])
        self.assertEqual((former / "old").read_text(), "what there was")

        await self.provider.start(row.machine, {})
        (data / "new").write_text("restored")
        row.machine = await row.keep(on_trial=False)
        self.assertTrue(await self.provider.confirm(row.machine, row.keep))
        self.assertFalse(former.exists())
        self.assertIsNone(row.machine.former_machine_id)
        self.assertEqual((data / "new").read_text(), "restored")
        self.assertTrue(await self.provider.confirm(row.machine, row.keep), "twice is no harm")

    async def test_a_copy_has_nowhere_to_go(self) -> None:
        machine, _ = await self.booted()
        moving = self.provider.relocate(machine, {}, Row(machine).keep, fresh=False)
        with self.assertRaises(Stranded) as caught:
            await moving
        self.assertFalse(caught.exception.can_copy)
