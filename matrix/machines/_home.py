"""The directory of one local machine: what lies where, who owns it, and the lock on it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

from matrix.machines.interfaces import MachineGone, ProviderError
from matrix.model import Address, UserId
from matrix.processes import Identity, Process, read_pid_file

SOCKET_PATH_BYTES = 107
"""The longest path of a unix socket on Linux: sun_path without its final zero (unix(7))."""

SOCKET = "sock"

PASSABLE = 0o711
"""A machine's user must get through to its own directories, and may list nothing on the way."""

LOG_BYTES = 10 * 1024 * 1024
"""A log longer than this is set aside at the next boot; one older log is kept."""


@dataclass(frozen=True, slots=True)
class Record:
    """What must survive us of a machine; its process is in the pid file."""

    machine_id: str
    uid: int | None
    """The user of its processes; C{None} if they run as us."""
    boot_id: str | None = None
    """Of its latest boot; C{None} before the first one."""
    address: str | None = None
    run: str | None = None
    """The directory of its socket; C{None} before it had one."""

    @property
    def identity(self) -> Identity | None:
        return None if self.uid is None else Identity(self.uid, self.uid)


class Home:
    """One machine's directory, C{<machines>/<user id>}. Every method may block."""

    def __init__(self, machines: Path, user_id: UserId) -> None:
        self.user_id = UserId(str(UUID(user_id)))
        self.path = machines / self.user_id
        self.data = self.path / "data"
        self.log = self.path / "log"
        self.pid_file = self.path / "pid"
        self._record = self.path / "machine.json"
        self._former = self.path / "former"

    def make(self, allocate: Callable[[UserId], int | None]) -> Record:
        """
        The record, with all that belongs to it, in a directory that is there already; made
        now as far as it is missing.

        @param allocate: gives the uid of a machine made now.
        @raise ProviderError: the directory was made by another user.
        """
        record = self.load()
        if record is None:
            machine_id, uid = f"local-{uuid4().hex[:12]}", allocate(self.user_id)
            record = Record(machine_id, uid)
        if not self.complete():
            record = replace(record, boot_id=None, address=None)
        self._private(self.data, record.uid)
        self.save(record)
        return record

    def load(self) -> Record | None:
        """
        The record; C{None} if there is no such machine.

        @raise ProviderError: it cannot be used; says why.
        """
        try:
            text = self._record.read_text("utf-8")
            owner = self.path.stat().st_uid
        except FileNotFoundError:
            return None
        if owner != os.geteuid():
            raise ProviderError(
                f"{self.path} belongs to user {owner} and we are {os.geteuid()}: run Matrix "
                f"as that user, or choose another MATRIX_STATE_DIR"
            )
        try:
            return Record(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise ProviderError(f"{self._record} is damaged: {error}") from None

    def save(self, record: Record) -> None:
        """Write the record, whole or not at all, and wait until the disk has it."""
        scratch = self._record.with_suffix(".new")
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._record)
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def complete(self) -> bool:
        """Whether its data are there: without them the machine is lost."""
        return self.data.is_dir()

    def set_aside(self, answered: bool) -> Record:
        """
        Begin anew with an empty data directory, the former one kept until L{drop_former}.

        @param answered: whether the machine has, since the last time: if not, what it has now
            never were its data, and what was set aside then still are.
        """
        if answered:
            self.drop_former()
        if self._former.exists():
            _remove(self.data)
        elif self.data.exists():
            self.data.replace(self._former)
        return self.make(lambda _: None)

    def drop_former(self) -> None:
        """Delete what was set aside, if anything was."""
        _remove(self._former)

    def process(self) -> Process | None:
        """The leading process of the latest boot, dead or alive."""
        return read_pid_file(self.pid_file)

    def forget_process(self) -> None:
        """There is no latest boot any more."""
        self.pid_file.unlink(missing_ok=True)

    def place_socket(self, record: Record) -> tuple[Record, Address]:
        """
        Where the machine may make its socket, in a directory that only it can enter; a
        left-over socket is removed.

        The directory is C{run} here, or, should that be too long a name for a socket, one
        of the host's runtime directory. That is cleared when the host boots, and may be
        open to others: hence the look at whose it is, each time.
        """
        run = self.path / "run"
        if len(os.fsencode(run / SOCKET)) <= SOCKET_PATH_BYTES:
            self._private(run, record.uid)
        elif record.run is not None and _is_private(Path(record.run), record.uid):
            run = Path(record.run)
        else:
            run = self._short_run(record.uid)
        path = run / SOCKET
        path.unlink(missing_ok=True)
        return replace(record, run=str(run)), Address(path=str(path))

    def turn_log(self) -> None:
        """Set a long log aside."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.path / "log.1")

    def lock(self) -> int | None:
        """
        Try to be the only one, on this host, who acts on this machine.

        @return: the descriptor that holds the lock until it is closed; C{None} if another
            has it, or has just removed the directory.
        @raise MachineGone: there is no directory.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise MachineGone(f"user {self.user_id} has no machine here") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None

    def remove(self) -> None:
        """Delete everything; at no moment is there half a machine under its name."""
        record = self.load()
        if record is not None and record.run is not None:
            run = Path(record.run)
            if not run.is_relative_to(self.path) and _is_private(run, record.uid):
                shutil.rmtree(run)
        if self.path.exists():
            self.path.replace(self.path.with_name(f".removed-{uuid4().hex}"))
        for leftover in self.path.parent.glob(".removed-*"):
            shutil.rmtree(leftover, onerror=_open_and_retry)

    def _short_run(self, uid: int | None) -> Path:
        """
        A new directory with a short name.

        @raise ProviderError: even there the name would be too long.
        """
        runtime = os.environ.get("XDG_RUNTIME_DIR") if os.geteuid() != 0 else "/run"
        place = runtime if runtime and os.access(runtime, os.W_OK) else tempfile.gettempdir()
        run = Path(tempfile.mkdtemp(prefix="matrix-", dir=place))
        if len(os.fsencode(run / SOCKET)) > SOCKET_PATH_BYTES:
            run.rmdir()
            raise ProviderError(f"{place} is too long a name to hold a unix socket: set TMPDIR")
        self._private(run, uid)
        return run

    @staticmethod
    def _private(directory: Path, uid: int | None) -> None:
        """A directory for the machine alone. What the machine made is never followed."""
        directory.mkdir(mode=0o700, exist_ok=True)
        if uid is not None and directory.lstat().st_uid != uid:
            os.chown(directory, uid, uid, follow_symlinks=False)


def residents_of(machines: Path) -> list[UserId]:
    """The users that have a machine here; what is no user id is no machine."""
    return [UserId(path.parent.name) for path in machines.glob("*-*-*-*-*/machine.json")]


def _is_private(directory: Path, uid: int | None) -> bool:
    """Whether it is a directory, not a link, of this user (or ours), and closed to others."""
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return False
    owner = os.geteuid() if uid is None else uid
    return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and not status.st_mode & 0o077


def passable(directory: Path) -> None:
    """Make a directory that anyone may pass through and none may list; those above it too, as
    far as they are missing."""
    if not directory.parent.is_dir():
        passable(directory.parent)
    directory.mkdir(exist_ok=True)
    if stat.S_IMODE(directory.stat().st_mode) != PASSABLE:
        directory.chmod(PASSABLE)


def _remove(directory: Path) -> None:
    """Delete a directory that may be there, with all that is in it."""
    if directory.exists():
        shutil.rmtree(directory, onerror=_open_and_retry)


def _open_and_retry(function: Callable[..., object], path: str, _: object) -> None:
    """What C{rmtree} could not do because a directory was closed, even to its owner."""
    if os.path.lexists(path):
        os.chmod(os.path.dirname(path), 0o700)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, 0o700)
            shutil.rmtree(path)
        else:
            function(path)
