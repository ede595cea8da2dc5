"""A whole Matrix for acceptance tests: C{twistd matrix --embedded} as a process of its own."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from matrix.directory._cluster import USER, Cluster, find_installation
from matrix.directory._lockfile import LockFile
from matrix.directory._postmaster import DATABASE, HOST
from matrix.model import UserId
from matrix.testing.issuer import LocalIssuer
from matrix.testing.wire import Door

START_SECONDS = 60.0
"""For a first start on a busy machine; an idle one takes three."""

STOP_SECONDS = 30.0
"""Over twice what an orderly stop may take, so that a test sees by how much it was late."""

POLL_SECONDS = 0.02

POLL_SHARE = 4
"""How many times as long as it looks L{RunningMatrix.until} rests at least: many tests look at
once, and what they look for needs the processors, too."""

MOST_REST = 0.2
"""Seconds that it rests at most."""

ADMIN_SECONDS = 240.0
"""Without a sign of an answer by the admin API: a restore onto a new machine is one call, and takes
a host that is many times too busy two minutes."""

USUAL_FILES = 1024
"""What a shell lets a program open unless the program asks for more."""

LAUNCH = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"

SIGN_IN = re.compile(r"sign in\s+(https://\S+)")


class RunningMatrix:
    """
    One router with its PostgreSQL and machines, in a private directory.

    It is made stopped. L{start}, L{stop} and L{kill} may be called in turns: the state stays
    until L{close}, which leaves neither a process nor a file behind. Everything blocks.
    """

    def __init__(self, idle: float = 900.0, files: int = 0, **settings: object) -> None:
        """
        @param idle: seconds without use before a machine sleeps.
        @param files: how many files the router may open at most; 0 for as many as we may.
        @param settings: further settings by their lower-case name: C{local_command} and so on.
        """
        # As mktemp makes them, closed to others: machines must be able to pass even so.
        self.home = Path(tempfile.mkdtemp(prefix="matrix-run-"))
        self.state = self.home / "state"
        self.output_file = self.home / "output"
        self.idle = idle
        self.files = files
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            # Its S3 server takes seconds and some hundred MB, and few tests need it.
            "MATRIX_SNAPSHOTS": "false",
            **{f"MATRIX_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._run: dict[str, Any] = {}

    # the process

    def start(self) -> RunningMatrix:
        """Start it and wait until it is ready."""
        began = time.monotonic()
        with self.output_file.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", LAUNCH, *self._arguments()],
                env=self._environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A terminal's foreground job: a group of its own, and Ctrl-C not ignored.
                process_group=0,
                preexec_fn=partial(_as_a_terminal_would, self.files),
            )
        self.until(self._announced, START_SECONDS, "Matrix is ready")
        self.start_seconds = time.monotonic() - began
        return self

    def _arguments(self) -> list[str]:
        arguments = "--nodaemon --pidfile= matrix --embedded --listen localhost:0"
        places = ["--internal", "127.0.0.1:0", "--state-dir", str(self.state)]
        return [*arguments.split(), *places, "--idle", str(self.idle)]

    def _announced(self) -> bool:
        process = self._process()
        if process.poll() is not None:
            raise AssertionError(f"Matrix ended with {process.returncode}:\n{self.output()}")
        told = self._announcement()
        if told is None or told["pid"] != process.pid:
            return False
        self._run = told
        return True

    def _announcement(self) -> dict[str, Any] | None:
        """What it says of itself once it is ready, perhaps left over from an earlier start."""
        try:
            return dict(json.loads((self.state / "run.json").read_text()))
        except (FileNotFoundError, ValueError):
            return None

    def _process(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise AssertionError("this Matrix was not started")
        return self.process

    @property
    def pid(self) -> int:
        """The router's process."""
        return self._process().pid

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """
        Signal its whole process group, as a terminal does, and wait for the router's end.

        @return: the exit status, negative for a signal.
        """
        process = self._process()
        if process.poll() is None:
            os.killpg(process.pid, how)
        return process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL to the router alone; its machines and PostgreSQL live on."""
        self._process().kill()
        self._process().wait(STOP_SECONDS)

    def close(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop()
        finally:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            if self.process is not None:
                self.process.wait(STOP_SECONDS)
            self.until(lambda: not self.processes(), STOP_SECONDS, "all its processes are gone")
            shutil.rmtree(self.home)

    def output(self) -> str:
        """What it said, all starts together."""
        return self.output_file.read_text("utf-8", "replace")

    def until(self, happened: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for something; an AssertionError names it if it does not come to pass."""
        looked = time.monotonic()
        deadline = looked + seconds
        while not happened():
            now = time.monotonic()
            if now > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.output()[-3000:]}")
            time.sleep(max(POLL_SECONDS, min(POLL_SHARE * (now - looked), MOST_REST)))
            looked = time.monotonic()

    @property
    def announced(self) -> Mapping[str, Any]:
        """What it says of how it can be reached: C{public}, C{internal}, C{admin_token}."""
        return self._run

    # its users

    @property
    def url(self) -> str:
        """Of the public listener, without a slash at the end."""
        return str(self._run["public"]).rstrip("/")

    @property
    def door(self) -> Door:
        """The public listener."""
        parts = urlsplit(self.url)
        context = ssl.create_default_context(cafile=self._run["ca"])
        return Door(str(parts.hostname), int(parts.port or 443), context)

    @property
    def sign_in_link(self) -> str:
        """The latest that it printed."""
        return str(SIGN_IN.findall(self.output())[-1])

    def issuer(self) -> LocalIssuer:
        """The one whose tokens it takes."""
        return LocalIssuer.open(self.state / "issuer")

    def token(self, name: str, **claims: Any) -> str:
        """A token of a user, who need not have been known before."""
        issuer = self.issuer()
        issuer.add_user(name)
        return issuer.mint(name, **claims)

    def user_id(self, name: str) -> UserId:
        """The id that the user's tokens carry."""
        return self.issuer().add_user(name).id

    # what an operator sees

    def admin(self, path: str, method: str = "GET") -> Any:
        """Ask the admin API, below C{/admin/v1/}."""
        token = self._run["admin_token"]
        return json.loads(self._internal(f"/admin/v1/{path}", method, token))

    def admin_lines(self, path: str, method: str = "GET") -> list[Any]:
        """As L{admin}, where the answer is a document a line."""
        answer = self._internal(f"/admin/v1/{path}", method, self._run["admin_token"])
        return [json.loads(line) for line in answer.splitlines()]

    def _internal(self, path: str, method: str = "GET", token: str = "") -> bytes:
        request = Request(  # noqa: S310 -- the address is the one it printed
            str(self._run["internal"]).rstrip("/") + path,
            method=method,
            headers={"Authorization": f"Bearer {token}"},
        )
        with build_opener(ProxyHandler({})).open(request, timeout=ADMIN_SECONDS) as answer:
            return bytes(answer.read())

    def machine(self, name: str) -> Mapping[str, Any] | None:
        """The row of a user's machine."""
        machines = self.admin("machines")["machines"]
        return next((row for row in machines if row["user"] == self.user_id(name)), None)

    def events(self, name: str, kind: str | None = None) -> list[Mapping[str, Any]]:
        """Events of a user's machine, the newest first."""
        events = self.admin(f"users/{quote(self.user_id(name))}/events")["events"]
        return [event for event in events if kind in (None, event["kind"])]

    def suspend(self, *names: str) -> None:
        """Put machines to sleep, as the operator."""
        with ThreadPoolExecutor(8) as pool:
            paths = [f"users/{self.user_id(name)}/suspend" for name in names]
            list(pool.map(lambda path: self.admin(path, "POST"), paths))

    def metric(self, sample: str, **labels: str) -> float:
        """The sum of the samples that bear a name and these labels."""
        from prometheus_client.parser import text_string_to_metric_families

        text = self._internal("/metrics").decode()
        return sum(
            found.value
            for family in text_string_to_metric_families(text)
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )

    def sql(self, statement: str, *values: object) -> None:
        """Run a statement on its database, as the superuser."""
        import psycopg2

        cluster = Cluster(self.state / "postgres", find_installation())
        lock = LockFile.read(cluster.data)
        assert lock is not None, "PostgreSQL does not run"
        with closing(
            psycopg2.connect(
                host=HOST, port=lock.port, dbname=DATABASE, user=USER, password=cluster.password
            )
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values)

    def census(self) -> Mapping[str, Any]:
        """What the router says that it holds."""
        place = urlsplit(str(self._run["internal"]))
        header = {"Authorization": f"Bearer {self._run['admin_token']}"}
        with closing(HTTPConnection(str(place.hostname), place.port, timeout=90)) as connection:
            # Asked on a connection that it is still busy accepting, it would count that, too.
            for path in ("/healthz", "/admin/v1/census"):
                connection.request("GET", path, headers=header)
                told = connection.getresponse().read()
        return dict(json.loads(told))

    # what the operating system sees

    def memory(self) -> int:
        """Bytes of the router that are in memory now."""
        return int(status_of(self.pid)["VmRSS"].split()[0]) * 1024

    def processes(self) -> list[int]:
        """All that runs in its directory but the router: PostgreSQL and machines."""
        own = self.process.pid if self.process is not None else 0
        return [pid for pid in _pids() if pid != own and self._runs_here(pid)]

    def workers(self) -> list[int]:
        """Its worker processes that serve, in the order of their numbers."""
        found = [worker for worker in self.admin("status")["workers"] if worker["up"]]
        return [int(worker["pid"]) for worker in found]

    def _runs_here(self, pid: int) -> bool:
        try:
            return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(self.state)
        except OSError:
            return False

    def machine_processes(self, name: str) -> list[int]:
        """The processes of a user's machine."""
        mark = f"MATRIX_USER={self.user_id(name)}".encode()
        return [pid for pid in self.processes() if mark in environment_of(pid) and is_running(pid)]

    def kill_machine(self, name: str) -> None:
        """SIGKILL to all processes of a user's machine; returns when the kernel is done."""
        processes = self.machine_processes(name)
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        self.until(lambda: not any(map(is_running, processes)), STOP_SECONDS, "they are dead")

    def workspace(self, name: str) -> Path:
        """Where the files of a user's machine are."""
        return self.state / "machines" / self.user_id(name) / "data" / "workspace"


def environment_of(pid: int) -> list[bytes]:
    """What a process was started with, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def status_of(pid: int) -> dict[str, str]:
    """The fields of proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def state_of(pid: int) -> str:
    """The letter of a process's state, C{T} for stopped (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def is_running(pid: int) -> bool:
    """Whether a process is there, were it only one last thread of it that holds its files."""
    try:
        return state_of(pid) not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _as_a_terminal_would(files: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = files or most
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(USUAL_FILES, most), most))
