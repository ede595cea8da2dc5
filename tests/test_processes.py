"""Tests for detached programs: how they are started, known, signalled and watched."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

import matrix
from matrix.processes import (
    Identity,
    Process,
    SpawnError,
    descendants,
    find,
    group_members,
    host_boot,
    is_alive,
    marked_members,
    put_behind,
    python_reach,
    read_pid_file,
    session_members,
    signal_group,
    signal_process,
    spawn,
    state,
    user_members,
    watch_exit,
)
from matrix.processes._proc import _parse_stat

ROOT = os.geteuid() == 0
NOBODY = Identity(65534, 65534)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "MARK": "of-this-test"}

REPORT = """
import json, os, resource, signal, sys
print(json.dumps({
    "environment": dict(os.environ), "argv": sys.argv[1:], "cwd": os.getcwd(),
    "session": os.getsid(0), "group": os.getpgrp(), "pid": os.getpid(), "parent": os.getppid(),
    "descriptors": [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")[:-1]],
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()], "umask": os.umask(0),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "no-new-privileges": "NoNewPrivs:\\t1" in open("/proc/self/status").read(),
}), flush=True)
"""


def eventually(condition: Callable[[], Any]) -> Any:
    """The first true value of C{condition()}."""
    deadline = time.monotonic() + 10
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
    return value


class ProcessCase(TestCase):
    """A private directory, and an end to every process that a test starts."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="matrix-test-"))
        self.directory.chmod(0o711)
        self.addCleanup(shutil.rmtree, self.directory)
        self.log = self.directory / "log"

    def spawn(self, *argv: str, **options: Any) -> Process:
        options = {
            "env": ENVIRONMENT,
            "cwd": self.directory,
            "identity": None,
            "log": self.log,
            **options,
        }
        process = spawn(argv, **options)
        self.addCleanup(self.end, process)
        return process

    def end(self, process: Process) -> None:
        while signal_group(process, signal.SIGKILL):
            time.sleep(0.005)

    def python(self, code: str, *argv: str, **options: Any) -> Process:
        return self.spawn(sys.executable, "-I", "-c", code, *argv, **options)

    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def own_place(self, identity: Identity = NOBODY) -> Path:
        place = self.directory / "place"
        place.mkdir(mode=0o700)
        os.chown(place, identity.uid, identity.gid)
        return place

    def needs_root(self) -> None:
        if not ROOT:
            raise SkipTest("only root can run programs as somebody else")


class CleanRoomTests(ProcessCase):
    """What a program finds when it starts."""

    def report(self, *argv: str, **options: Any) -> dict[str, Any]:
        self.python(REPORT, *argv, **options)
        eventually(lambda: self.output().endswith("\n"))
        return dict(json.loads(self.output()))

    def test_only_what_was_given(self) -> None:
        os.environ["ROUTER_SECRET"] = "x"
        self.addCleanup(os.environ.pop, "ROUTER_SECRET")
        report = self.report("one", "two words")
        del report["environment"]["LC_CTYPE"]  # Python itself sets it
        self.assertEqual(report["environment"], ENVIRONMENT)
        self.assertEqual(report["argv"], ["one", "two words"])
        self.assertEqual(report["cwd"], str(self.directory))

    def test_no_descriptor_but_the_standard_ones(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        ours.set_inheritable(True)
        report = self.report()
        kept = [name for name in report["descriptors"] if not name.startswith("/proc")]
        self.assertEqual(kept, ["/dev/null", str(self.log), str(self.log)])

    def test_it_is_nobodys_child_and_leads_its_session(self) -> None:
        report = self.report()
        self.assertEqual(report["session"], report["pid"])
        self.assertEqual(report["group"], report["pid"])
        self.assertNotEqual(report["parent"], os.getpid())

    def test_no_signal_is_ignored_or_blocked(self) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        self.spawn("/bin/grep", "-E", "Sig(Ign|Blk)", "/proc/self/status")
        eventually(lambda: self.output().count("\n") == 2)
        masks = [line.split()[1] for line in self.output().splitlines()]
        self.assertEqual(masks, ["0" * 16, "0" * 16])

    def test_privileges_umask_and_limits(self) -> None:
        report = self.report(limits={resource.RLIMIT_CORE: 0})
        self.assertTrue(report["no-new-privileges"])
        self.assertEqual(report["umask"], 0o077)
        self.assertEqual(report["core"], [0, 0])

    def test_the_identity_is_taken_on_whole(self) -> None:
        self.needs_root()
        report = self.report(identity=NOBODY, cwd=self.own_place(), reach=python_reach())
        self.assertEqual(report["ids"], [[65534] * 3, [65534] * 3, []])

    def test_without_a_log_nothing_is_written(self) -> None:
        process = self.python("print('x')", log=None)
        eventually(lambda: not is_alive(process))
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_the_log_is_private_and_appended_to(self) -> None:
        for word in ("first", "second"):
            self.spawn("/bin/echo", word)
            eventually(lambda word=word: word in self.output())
        self.assertEqual(self.output(), "first\nsecond\n")
        self.assertEqual(self.log.stat().st_mode & 0o777, 0o600)

    def test_the_pid_file_is_there_before_the_first_instruction(self) -> None:
        pid_file = self.directory / "pid"
        process = self.spawn("/bin/cat", str(pid_file), pid_file=pid_file)
        eventually(self.output)
        self.assertEqual(self.output(), f"{process.pid} {process.started} {host_boot()}\n")
        self.assertEqual(read_pid_file(pid_file), process)


class ClosedDirectoryTests(ProcessCase):
    """Programs of other users below directories that are closed to them."""

    def setUp(self) -> None:
        self.needs_root()
        super().setUp()
        self.directory.chmod(0o700)
        (self.directory / "secret").write_text("x")
        self.place = self.own_place()

    def look(self, *commands: str, **options: Any) -> Sequence[str]:
        """What a shell says that runs in a place below the closed directory."""
        line = "; ".join([*commands, "echo end"])
        self.spawn("/bin/sh", "-c", line, identity=NOBODY, cwd=self.place, **options)
        eventually(lambda: "end" in self.output())
        return self.output().splitlines()[:-1]

    def test_it_sees_its_place_and_nothing_else(self) -> None:
        self.assertEqual(self.look(f"ls {self.directory}", "pwd"), ["place", str(self.place)])

    def test_what_it_writes_is_really_there(self) -> None:
        self.look("echo kept > file")
        self.assertEqual((self.place / "file").read_text(), "kept\n")

    def test_reach_is_there_read_only_even_below_a_closed_directory_in_a_closed_one(self) -> None:
        code = self.directory / "inner" / "code"
        code.mkdir(parents=True)
        code.parent.chmod(0o700)
        code.chmod(0o777)
        (code / "module").write_text("text\n")
        lines = self.look(f"cat {code}/module", f"touch {code}/new 2>&1", reach=[code])
        self.assertEqual(lines[0], "text")
        self.assertIn("Read-only file system", lines[1])

    def test_writable_is_writable_inside_what_is_read_only(self) -> None:
        spool = self.directory / "code" / "spool"
        spool.mkdir(parents=True)
        spool.chmod(0o777)
        self.look(f"echo x > {spool}/new", reach=[spool.parent], writable=[spool])
        self.assertEqual((spool / "new").read_text(), "x\n")

    def test_a_program_behind_links_is_found(self) -> None:
        real = self.directory / "real"
        real.mkdir(mode=0o700)
        shutil.copy("/bin/sh", real / "shell")
        (self.directory / "bin").mkdir()
        (self.directory / "bin" / "sh").symlink_to("../hop")
        (self.directory / "hop").symlink_to(real / "shell")
        program = str(self.directory / "bin" / "sh")
        self.spawn(program, "-c", "echo ran", identity=NOBODY, cwd=self.place)
        eventually(self.output)
        self.assertEqual(self.output(), "ran\n")

    def test_our_own_python_runs(self) -> None:
        code = "import matrix, twisted.plugins; print(matrix.__file__)"
        self.python(code, identity=NOBODY, cwd=self.place, reach=python_reach())
        eventually(self.output)
        self.assertEqual(self.output(), f"{matrix.__file__}\n")

    def test_nobody_else_sees_the_mounts(self) -> None:
        before = Path("/proc/self/mountinfo").read_text()
        self.look("true")
        self.assertEqual(Path("/proc/self/mountinfo").read_text(), before)

    def test_what_is_itself_closed_is_named(self) -> None:
        closed = self.directory / "closed"
        closed.mkdir(mode=0o700)
        with self.assertRaisesRegex(SpawnError, f"{closed} is closed to user 65534.*chmod"):
            self.look("true", reach=[closed])

    def test_where_mounts_are_not_permitted_the_directory_is_named(self) -> None:
        code = (
            "import sys; from pathlib import Path; from matrix.processes import *\n"
            "try: spawn(['/bin/true'], env={}, cwd=Path(sys.argv[1]),"
            " identity=Identity(65534, 65534), log=None)\n"
            "except SpawnError as error: print(error)"
        )
        command = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
        done = subprocess.run(
            [*command, sys.executable, "-c", code, str(self.place)],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertIn(f"the directory {self.directory} is closed to user 65534", done.stdout)
        self.assertIn("MATRIX_STATE_DIR", done.stdout)
        self.assertIn(f"chmod o+x {self.directory}", done.stdout)


class RefusalTests(ProcessCase):
    """Errors come at once, and say why."""

    def refused(self, *argv: str, **options: Any) -> str:
        pid_file = self.directory / "pid"
        with self.assertRaises(SpawnError) as caught:
            self.spawn(*argv, pid_file=pid_file, **options)
        self.assertFalse(pid_file.exists())
        return str(caught.exception)

    def test_no_such_program(self) -> None:
        self.assertIn("cannot start /no/where: there is no such program", self.refused("/no/where"))
        self.assertIn("on PATH /usr/bin:/bin", self.refused("no-such-program"))

    def test_no_program(self) -> None:
        self.log.write_text("")
        self.assertIn("may not run it", self.refused(str(self.log)))

    def test_no_such_directory(self) -> None:
        self.assertIn("no directory /no/where", self.refused("/bin/true", cwd=Path("/no/where")))

    def test_a_log_that_is_a_link_is_not_followed(self) -> None:
        self.log.symlink_to(self.directory / "target")
        self.refused("/bin/true")
        self.assertFalse((self.directory / "target").exists())

    def test_somebody_else_without_root(self) -> None:
        if ROOT:
            raise SkipTest("root can")
        self.assertIn("only root", self.refused("/bin/true", identity=Identity(1, 1)))

    def test_secrets_are_in_no_error(self) -> None:
        self.assertNotIn("hidden", self.refused("/no/where", env={"TOKEN": "hidden"}))


class KnowingTests(ProcessCase):
    """Processes are known for good."""

    def test_alive_stopped_and_dead(self) -> None:
        process = self.spawn("/bin/sleep", "60")
        self.assertEqual(find(process.pid), process)
        self.assertTrue(is_alive(process))
        signal_process(process, signal.SIGSTOP)
        eventually(lambda: state(process) == "T")
        self.assertTrue(is_alive(process))
        signal_process(process, signal.SIGKILL)
        eventually(lambda: not is_alive(process))
        self.assertFalse(signal_process(process, signal.SIGTERM))

    def test_one_that_is_put_behind_lets_others_go_first(self) -> None:
        process = self.spawn("/bin/sleep", "60")
        put_behind(process, 7)
        self.assertEqual(os.getpriority(os.PRIO_PROCESS, process.pid), 7)
        autogroup = Path(f"/proc/{process.pid}/autogroup")
        if os.geteuid() == 0 and autogroup.exists():  # others may be told to try later
            self.assertIn("nice 7", autogroup.read_text())

    def test_putting_behind_what_is_gone_does_nothing(self) -> None:
        process = self.spawn("/bin/sleep", "60")
        signal_process(process, signal.SIGKILL)
        eventually(lambda: find(process.pid) is None)
        put_behind(process, 7)

    def test_a_zombie_is_dead(self) -> None:
        child = subprocess.Popen(["/bin/sleep", "60"])
        process = find(child.pid)
        assert process is not None
        child.kill()
        eventually(lambda: state(process) == "Z")
        self.assertFalse(is_alive(process))
        self.assertIsNone(watch_exit(process, reactor, self.fail))
        child.wait()
        self.assertIsNone(state(process))

    def test_another_process_with_the_same_id_gets_no_signal(self) -> None:
        process = self.spawn("/bin/sleep", "60")
        former = Process(process.pid, process.started - 1)
        self.assertFalse(signal_process(former, signal.SIGKILL))
        self.assertEqual(signal_group(former, signal.SIGKILL), 0)
        self.assertFalse(is_alive(former))
        self.assertIsNone(state(former))
        self.assertIsNone(watch_exit(former, reactor, self.fail))
        self.assertTrue(is_alive(process))

    def test_members_by_group_session_mark_and_user(self) -> None:
        line = "sleep 61 & setsid sleep 62 & wait; wait"
        mark = f"MARK={self.directory}"
        identity = Identity(65533, 65533) if ROOT else Identity(os.getuid(), os.getgid())
        environment = {"PATH": "/usr/bin:/bin", "MARK": str(self.directory)}
        leader = self.spawn(
            "/bin/sh", "-c", line, env=environment, identity=identity, cwd=Path("/")
        )
        everybody = eventually(lambda: set(self.of_three(marked_members(mark))))
        self.addCleanup(lambda: [signal_process(each, signal.SIGKILL) for each in everybody])
        self.assertEqual(len(group_members(leader.pid)), 2)
        self.assertEqual(set(group_members(leader.pid)), set(session_members(leader.pid)))
        self.assertIn(leader, everybody)
        if ROOT:
            self.assertEqual(set(user_members(65533)), everybody)
        self.assertLessEqual(everybody, set(user_members(identity.uid)))

    def test_descendants_whatever_their_session(self) -> None:
        line = "setsid sh -c 'sleep 62 & wait' & (sleep 61 & wait) & wait"
        leader = self.spawn("/bin/sh", "-c", line)

        def family() -> list[Process]:
            found = descendants(leader)
            names = [Path(f"/proc/{each.pid}/comm").read_text().strip() for each in found]
            return found if sorted(names) == ["sh", "sh", "sleep", "sleep"] else []

        found = eventually(family)
        self.addCleanup(lambda: [signal_process(each, signal.SIGKILL) for each in found])
        self.assertEqual(len({os.getsid(each.pid) for each in found}), 2)
        self.assertEqual(len(set(found) - set(group_members(leader.pid))), 2)

    def test_descendants_of_a_thread_other_than_the_first(self) -> None:
        code = (
            "import subprocess, threading; "
            "threading.Thread(target=subprocess.run, args=(['sleep', '60'],)).start()"
        )
        leader = self.python(code)
        (child,) = eventually(lambda: descendants(leader))
        self.assertEqual(eventually(lambda: descendants(leader)), [child])

    def test_what_is_gone_has_no_descendants(self) -> None:
        process = self.spawn("/bin/sleep", "60")
        signal_process(process, signal.SIGKILL)
        eventually(lambda: find(process.pid) is None)
        self.assertEqual(descendants(process), [])

    @staticmethod
    def of_three(found: list[Process]) -> list[Process]:
        names = [Path(f"/proc/{each.pid}/comm").read_text().strip() for each in found]
        return found if sorted(names) == ["sh", "sleep", "sleep"] else []

    def test_the_group_outlives_its_leader(self) -> None:
        leader = self.spawn("/bin/sh", "-c", "sleep 60 & sleep 0.05")
        eventually(lambda: not is_alive(leader))
        self.assertEqual(len(group_members(leader.pid)), 1)
        self.assertEqual(signal_group(leader, signal.SIGKILL), 1)
        eventually(lambda: not group_members(leader.pid))

    def test_a_pid_file_is_good_for_one_boot_of_the_host(self) -> None:
        pid_file = self.directory / "pid"
        self.assertIsNone(read_pid_file(pid_file))
        for text in ("", "1 2", "x y z", "1 2 another-boot"):
            pid_file.write_text(text)
            self.assertIsNone(read_pid_file(pid_file))
        pid_file.write_text(f"1 2 {host_boot()}\n")
        self.assertEqual(read_pid_file(pid_file), Process(1, 2))


class WatchTests(ProcessCase):
    """The reactor learns of an exit."""

    timeout = 10

    async def test_an_exit_is_told_once(self) -> None:
        process = self.spawn("/bin/sleep", "60")
        ended: Deferred[None] = Deferred()
        watch = watch_exit(process, reactor, lambda: ended.callback(None))
        assert watch is not None
        signal_process(process, signal.SIGKILL)
        await ended
        self.assertFalse(is_alive(process))
        self.assertEqual(watch.fileno(), -1)

    async def test_a_cancelled_watch_is_silent(self) -> None:
        process, other = self.spawn("/bin/sleep", "60"), self.spawn("/bin/sleep", "60")
        watch = watch_exit(process, reactor, self.fail)
        assert watch is not None
        watch.cancel()
        watch.cancel()
        ended: Deferred[None] = Deferred()
        watch_exit(other, reactor, lambda: ended.callback(None))
        signal_process(process, signal.SIGKILL)
        signal_process(other, signal.SIGKILL)
        await ended

    async def test_a_failing_watcher_is_logged(self) -> None:
        process = self.spawn("/bin/sleep", "60")
        ended: Deferred[None] = Deferred()

        def fail() -> None:
            reactor.callLater(0, ended.callback, None)
            raise ZeroDivisionError

        watch_exit(process, reactor, fail)
        signal_process(process, signal.SIGKILL)
        await ended
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class StatTests(SynchronousTestCase):
    """Reading /proc/PID/stat."""

    @given(
        st.binary(max_size=15).filter(lambda name: b"\0" not in name),
        st.integers(1, 4_000_000),
        st.sampled_from("RSDTtZXI"),
        st.integers(0, 2**60),
    )
    def test_any_name_of_a_command(self, name: bytes, pid: int, letter: str, started: int) -> None:
        fields = f"{letter} 1 {pid} 77 {'0 ' * 15}{started} 0 0"
        stat = _parse_stat(b"%d (%s) %s\n" % (pid, name, fields.encode()))
        self.assertEqual(stat.process, Process(pid, started))
        self.assertEqual((stat.state, stat.group, stat.session), (letter, pid, 77))
        self.assertEqual(stat.alive, letter not in "ZX")

    def test_we_are_alive(self) -> None:
        ourselves = find(os.getpid())
        assert ourselves is not None
        self.assertTrue(is_alive(ourselves))
        self.assertIn(ourselves, group_members(os.getpgrp()))


class ReachTests(SynchronousTestCase):
    """What our own Python needs."""

    def test_prefixes_and_package_but_not_the_checkout(self) -> None:
        reach = python_reach()
        package = Path(matrix.__file__).parent
        self.assertLessEqual({Path(sys.prefix), Path(sys.base_prefix), package}, set(reach))
        self.assertNotIn(package.parent, reach)
