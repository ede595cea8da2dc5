"""The restic program with full rights on users' repositories: on the box, straight to the store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from twisted.internet.defer import Deferred

from matrix.errors import ConfigurationError
from matrix.model import UserId
from matrix.processes import find, watch_exit
from matrix.snapshots._s3_wire import S3Place

PROGRAM = "restic"

LOCKED = 11
"""restic's exit status, since 0.17, for a repository that another works on."""
_LOCKED_TEXT = "already locked"
"""What earlier ones say."""

OUTPUT_BYTES = 256 << 20
"""Of standard output that is read: the listing of a million files."""
COMPLAINT_BYTES = 4096
"""Of standard error: its end says what was wrong."""


class ResticFailed(Exception):
    """It ended badly; the text is one line for the operator."""


class RepositoryBusy(ResticFailed):
    """Another process works on the repository, such as a machine's backup."""


def find_restic() -> str:
    """
    Where the program is.

    @raise ConfigurationError: nowhere.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise ConfigurationError(
            "restic is not installed on this box: install it (Debian: apt install restic)"
        )
    return found


@dataclass(frozen=True, slots=True)
class Desk:
    """What it takes to open users' repositories: a store, and where in it they are."""

    place: S3Place
    """With a key that may do there what is to be done."""
    prefix: str
    """Before all our keys; ends in a slash."""

    def command(self, *arguments: str) -> list[str]:
        """
        The command line.

        @raise ConfigurationError: restic is not installed.
        """
        # Without a cache: it would hold some of everybody's data, and grow for ever.
        command = [find_restic(), "--no-cache"]
        if self.place.ca_file is not None:
            command += ["--cacert", self.place.ca_file]
        return [*command, *arguments]

    def environment(self, user_id: UserId, password: str) -> dict[str, str]:
        """What restic is told of a user's repository, and nothing of what else is around us."""
        place = self.place
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/nonexistent",
            "TMPDIR": tempfile.gettempdir(),
            "LANG": "C.UTF-8",
            "NO_PROXY": "*",
            "GOMAXPROCS": "1",  # what is done off-peak must not be felt
            "AWS_ACCESS_KEY_ID": place.access_key,
            "AWS_SECRET_ACCESS_KEY": place.secret_key,
            "AWS_DEFAULT_REGION": place.region,
            "RESTIC_REPOSITORY": f"s3:{place.endpoint}/{place.bucket}/{self.prefix}{user_id}",
            "RESTIC_PASSWORD": password,
        }


class Restic:
    """Runs the program for one user's repository."""

    def __init__(self, reactor: Any, desk: Desk, user_id: UserId, password: str) -> None:
        """
        @param reactor: IReactorFDSet.
        """
        self._reactor = reactor
        self._desk = desk
        self._environment = desk.environment(user_id, password)

    async def run(self, *arguments: str) -> bytes:
        """
        Run it to its end; cancelling ends it.

        @return: its standard output.
        @raise RepositoryBusy: it cannot be done now.
        @raise ResticFailed: it cannot be done, or restic is not there.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            status = await self._spawn(arguments, out, err)
            if status:
                raise failure(arguments[0], status, _tail(err))
            out.seek(0)
            return out.read(OUTPUT_BYTES)

    async def read(self, *arguments: str) -> list[dict[str, Any]]:
        """
        Run it with C{--json}; what it says, be that one list or one document a line.

        @raise RepositoryBusy, ResticFailed: as L{run}.
        """
        text = await self.run(*arguments, "--json")
        try:
            lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise ResticFailed(f"restic {arguments[0]} answered something else than JSON") from None
        return lines[0] if len(lines) == 1 and isinstance(lines[0], list) else lines

    def _spawn(self, arguments: Sequence[str], out: IO[bytes], err: IO[bytes]) -> Deferred[int]:
        try:
            process = subprocess.Popen(
                self._desk.command(*arguments),
                env=self._environment,
                cwd=tempfile.gettempdir(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except (OSError, ConfigurationError) as error:
            raise ResticFailed(f"restic cannot be started: {error}") from None
        ended: Deferred[int] = Deferred(lambda _: process.send_signal(signal.SIGINT))

        def reap() -> None:
            status = process.wait()
            if not ended.called:
                ended.callback(status)

        known = find(process.pid)
        if known is None or watch_exit(known, self._reactor, reap) is None:
            self._reactor.callLater(0, reap)
        return ended


def failure(verb: str, status: int, said: str) -> ResticFailed:
    """What a run that ended badly means, by its exit status and what it said."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if status == LOCKED or _LOCKED_TEXT in said:
        return RepositoryBusy(f"restic {verb}: another works on this repository")
    fatal = [line for line in lines if line.startswith("Fatal")] or lines[-1:]
    return ResticFailed(
        f"restic {verb} ended with {status}: {' '.join(fatal) or 'it said nothing'}"
    )


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - COMPLAINT_BYTES))
    return file.read().decode("utf-8", "replace")


def leftover(folder: Path) -> None:
    """Remove a folder that restic wrote to, also where it was made unreadable."""
    shutil.rmtree(folder, onerror=_open_and_retry)


def _open_and_retry(function: Any, path: str, _: object) -> None:
    parent = Path(path).parent
    for one in (parent, Path(path)):
        if one.is_dir() and not one.is_symlink():
            one.chmod(0o700)
    if Path(path).is_dir() and not Path(path).is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
