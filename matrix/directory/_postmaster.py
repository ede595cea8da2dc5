"""The running server of an embedded cluster: started, adopted, found ready, shut down."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from time import monotonic, sleep

import psycopg2

from matrix.directory._cluster import (
    ENVIRONMENT,
    POLL,
    USER,
    Cluster,
    last_error,
    spawn_or_explain,
    wait_dead,
)
from matrix.directory._lockfile import NAME, LockFile, is_postmaster
from matrix.errors import ConfigurationError
from matrix.processes import (
    Process,
    SpawnError,
    find,
    is_alive,
    read_pid_file,
    signal_process,
    spawn,
)

DATABASE = "matrix"
HOST = "127.0.0.1"

READY_SECONDS = 60.0
"""Readiness takes 0.1 s; replaying the log after a power cut can take much longer."""

ADOPT_SECONDS = 10.0
"""A server that runs already and does not answer within this time is shut down instead."""

CONNECT_SECONDS = 3
"""For one connection to a server that says it is ready."""

ATTEMPTS = 5
"""A free port may be taken before PostgreSQL gets it, but hardly five times in a row."""

FAST_SECONDS, IMMEDIATE_SECONDS = 30.0, 5.0
"""How long a shutdown may take: writing all back; without writing back."""

LOG_LIMIT = 1 << 20
"""Bytes; a longer log is begun anew at a start."""

DURABLE = {
    "shared_buffers": "32MB",
    "max_connections": "200",
    # One box, nobody replicates: the log need not be written for that.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    # Small rows by key: neither compiled queries nor helper processes pay off.
    "max_logical_replication_workers": "0",
    "jit": "off",
    "io_method": "sync",
    "huge_pages": "off",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""Settings for small and quick; none of them risks a committed row."""

DISPOSABLE = DURABLE | {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings for tests, whose data nobody misses."""


class Postmaster:
    """The server of one L{Cluster}. Every method blocks: call them in a thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.process: Process | None = None
        self._port = 0
        self._given_up = False

    @property
    def log(self) -> Path:
        """What the server has to say."""
        return self._cluster.log

    def where(self) -> str:
        """The connection string of our database; it holds the password."""
        return self.dsn(DATABASE)

    def give_up(self) -> None:
        """Let a start under way fail soon: replaying a long log takes minutes. May be called
        from any thread."""
        self._given_up = True

    def start(self) -> str:
        """
        See to it that the server runs.

        @return: the connection string of the database C{matrix}.
        @raise ConfigurationError: it does not run; says why, in one line.
        """
        self._cluster.acquire()
        try:
            self._cluster.prepare()
            if not self._adopt():
                self._launch(0)
        except BaseException:
            self.stop()
            raise
        return self.dsn(DATABASE)

    def restart(self) -> None:
        """
        Start the server again, where it was, after it died by itself.

        @raise ConfigurationError: it does not run.
        """
        self._remove_stale_lock()
        self._launch(self._port)

    def end_predecessor(self) -> None:
        """Shut down the server that a predecessor left running, if any."""
        process = self._running()
        if process is not None:
            shut_down(process)

    def stop(self) -> None:
        """Shut the server down, wait until its processes are gone, let go of the directory."""
        try:
            if self.process is not None:
                shut_down(self.process)
                self._cluster.pid_file.unlink(missing_ok=True)
                self.process = None
        finally:
            self._cluster.release()

    def dsn(self, database: str) -> str:
        """The connection string of a database; it holds the password."""
        # Only loopback: encryption is not built in, and asking for it costs a round trip.
        # SCRAM proves the server to us, too: another program on this port learns nothing.
        options = "sslmode=disable&gssencmode=disable&require_auth=scram-sha-256"
        password = self._cluster.password
        return f"postgresql://{USER}:{password}@{HOST}:{self._port}/{database}?{options}"

    def _adopt(self) -> bool:
        """Take over the server that a predecessor left running, or end it."""
        process = self._running()
        if process is not None:
            lock = LockFile.read(self._cluster.data)
            self.process, self._port = process, lock.port if lock else 0
            if self._port and self._await_ready(process, ADOPT_SECONDS):
                return True
            shut_down(process)
            self.process = None
        self._remove_stale_lock()
        return False

    def _running(self) -> Process | None:
        """The live postmaster of this data directory, whoever started it."""
        ours = read_pid_file(self._cluster.pid_file)
        if ours is not None and is_alive(ours):
            return ours
        lock = LockFile.read(self._cluster.data)
        process = find(lock.pid) if lock else None
        if process and is_alive(process) and is_postmaster(process, self._cluster.data):
            return process
        return None

    def _remove_stale_lock(self) -> None:
        """
        Remove a lock file that names a stranger or a zombie: PostgreSQL would take either
        for a postmaster. One that names nobody it removes itself; and should backends of
        a dead one live on, it notices by their shared memory.
        """
        lock = LockFile.read(self._cluster.data)
        if lock and find(lock.pid) is not None:
            (self._cluster.data / NAME).unlink(missing_ok=True)

    def _launch(self, port: int) -> None:
        """Start a server, on this port if it is not 0."""
        said = ""
        for attempt in range(ATTEMPTS):
            sleep(0.2 * attempt)  # the remains of a killed server take a moment to go
            self._port = port or free_port()
            begin = self._trim_log()
            self.process = spawn_or_explain(self._spawn)
            if self._await_ready(self.process, READY_SECONDS):
                return
            said = self._cluster.log.read_text("utf-8", "replace")[begin:]
            if is_alive(self.process):
                raise ConfigurationError(
                    f"embedded PostgreSQL is not ready after {READY_SECONDS:.0f} s: "
                    f"{last_error(said, self._cluster.log)}"
                )
            if not passing(said):
                break
        raise ConfigurationError(
            f"embedded PostgreSQL does not start: {last_error(said, self._cluster.log)}"
        )

    def _spawn(self) -> Process:
        cluster = self._cluster
        settings = (DURABLE if cluster.durable else DISPOSABLE) | {
            "listen_addresses": HOST,
            "port": str(self._port),
            # A socket's path must be under 108 bytes, and a state directory may be deep.
            "unix_socket_directories": "",
        }
        argv = [cluster.installation.program("postgres"), "-D", str(cluster.data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return spawn(
            argv,
            env=ENVIRONMENT,
            cwd=cluster.data,
            identity=cluster.identity,
            log=cluster.log,
            reach=cluster.installation.reach,
            pid_file=cluster.pid_file,
        )

    def _trim_log(self) -> int:
        """Begin the log anew if it is long; returns how many characters it has now."""
        log = self._cluster.log
        if not log.exists():
            return 0
        if log.stat().st_size > LOG_LIMIT:
            os.truncate(log, 0)
        return len(log.read_text("utf-8", "replace"))

    def _await_ready(self, process: Process, seconds: float) -> bool:
        """
        Wait until the server answers queries and has our database.

        @return: C{False} if it ended, or does not answer in time.
        @raise ConfigurationError: it refuses the password, or we were told to L{give_up}.
        """
        deadline = monotonic() + seconds
        while is_alive(process) and monotonic() < deadline:
            if self._given_up:
                raise ConfigurationError("embedded PostgreSQL was stopped while it started")
            lock = LockFile.read(self._cluster.data)
            # Its port alone says nothing: another program may have it.
            if lock is None or not lock.ready or lock.pid != process.pid:
                sleep(POLL)
                continue
            try:
                self._make_database()
            except psycopg2.OperationalError as error:
                if "authentication failed" in str(error):
                    raise ConfigurationError(
                        f"{self._cluster.root}/password is not the password of "
                        f"{self._cluster.data}: put the right one back"
                    ) from None
                sleep(POLL)
            else:
                return True
        return False

    def _make_database(self) -> None:
        """
        Make the database if there is none.

        @raise psycopg2.OperationalError: the server does not answer (yet).
        """
        connection = psycopg2.connect(self.dsn("postgres"), connect_timeout=CONNECT_SECONDS)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            connection.close()


def passing(said: str) -> bool:
    """Whether what PostgreSQL said before it ended is trouble that goes away by itself."""
    return "Address already in use" in said or "shared memory block" in said


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def shut_down(process: Process) -> None:
    """
    End a postmaster: politely, then without writing back (its log makes up for it), then hard.

    @raise SpawnError: it would not end even so.
    """
    for number, seconds in (
        (signal.SIGINT, FAST_SECONDS),
        (signal.SIGQUIT, IMMEDIATE_SECONDS),
        (signal.SIGKILL, IMMEDIATE_SECONDS),
    ):
        if not signal_process(process, number) or wait_dead(process, seconds):
            return
    raise SpawnError(f"PostgreSQL (process {process.pid}) cannot be ended")
