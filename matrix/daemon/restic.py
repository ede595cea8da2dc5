"""restic as a process: its surroundings, what it says, and its end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from matrix.daemon.briefing import Briefing
from matrix.daemon.faults import is_refusal
from matrix.daemon.transfer import CHUNK
from matrix.daemon.volume import Volume

PROGRAM = "restic"
_LEASH = Path(__file__).with_name("leash.py")

SAID_LIMIT = 64 * 1024
"""Bytes of standard error that are kept: the end of it, where restic says why it ended."""

Said = Callable[[dict[str, Any]], None]
"""Called with each JSON document that restic writes, in the thread that runs it."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A run of restic that has ended."""

    code: int
    complaint: str
    """Its standard error, without our secrets."""
    stopped: bool = False
    """Whether it was we who ended it."""


def is_installed() -> bool:
    """Whether this machine has restic."""
    return shutil.which(PROGRAM) is not None


class Restic:
    """
    Runs restic on a machine's repository. Its methods block, in as many threads as one likes,
    but for L{stop}.
    """

    def __init__(self, briefing: Briefing, volume: Volume) -> None:
        self._briefing = briefing
        self._volume = volume
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, *arguments: str, said: Said | None = None, cwd: Path | None = None) -> Ran:
        """
        Run it to its end.

        @param said: hears its standard output, line by line, with C{--json} among the arguments.
        """

        def read(out: IO[bytes]) -> None:
            for line in out:
                if said is not None and line.startswith(b"{"):
                    said(json.loads(line))

        return self._run(arguments, read, cwd)

    def collect(self, *arguments: str) -> tuple[Ran, bytes]:
        """Run it; all it wrote to standard output, which must be known to be short."""
        found: list[bytes] = []
        ran = self._run(arguments, lambda out: found.append(out.read()), None)
        return ran, b"".join(found)

    def pour(self, *arguments: str, into: Callable[[Sequence[bytes]], None]) -> Ran:
        """
        Run it, and hand on what it writes as it comes.

        @param into: what it raises ends the run, and goes on to the caller.
        """

        def read(out: IO[bytes]) -> None:
            while chunk := out.read(CHUNK):
                into([chunk])

        return self._run(arguments, read, None)

    def stop(self) -> None:
        """End what runs, and let nothing begin any more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def written(self) -> int:
        """Bytes that the processes under way have written: restic before 0.17 does not tell how
        far a restore is."""
        with self._lock:
            return sum(_written(process.pid) for process in self._running)

    def _run(
        self, arguments: Sequence[str], read: Callable[[IO[bytes]], None], cwd: Path | None
    ) -> Ran:
        process = self._begin(arguments, cwd)
        if process is None:
            return Ran(-1, "the daemon stops", stopped=True)
        listener = _Complaint(process)
        try:
            with process:
                assert process.stdout is not None
                try:
                    read(process.stdout)
                except BaseException:
                    process.kill()
                    raise
            listener.join()
        finally:
            with self._lock:
                self._running.discard(process)
        hidden = self._briefing.hide(listener.text())
        return Ran(process.returncode, hidden, self._stopped)

    def _begin(self, arguments: Sequence[str], cwd: Path | None) -> subprocess.Popen[bytes] | None:
        leashed = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), PROGRAM]
        with self._lock:
            if self._stopped:
                return None
            process = subprocess.Popen(
                [*leashed, *arguments],
                env=self._environment(),
                cwd=cwd or self._volume.private,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            self._running.add(process)
            return process

    def _environment(self) -> dict[str, str]:
        """Nothing is inherited but where programs are: a proxy or another repository in the
        user's own settings is not meant for this."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._volume.private),
            "RESTIC_CACHE_DIR": str(self._volume.restic_cache),
            "RESTIC_PROGRESS_FPS": "2",
            # By which a provider on one's own computer finds what belongs to a machine.
            **{name: os.environ[name] for name in ("MATRIX_MACHINE_ID",) if name in os.environ},
            **self._briefing.restic_environment(),
        }


class _Complaint(threading.Thread):
    """Reads standard error; ends a run that goes on trying what is refused for good."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(name="restic-complaint", daemon=True)
        self._process = process
        self._said = b""
        self.start()

    def run(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said = (self._said + line)[-SAID_LIMIT:]
            if is_refusal(line.decode("utf-8", "replace")):
                self._process.kill()

    def text(self) -> str:
        """What was said."""
        return self._said.decode("utf-8", "replace")


def _written(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/io").read_text("ascii").split()
        return int(fields[fields.index("wchar:") + 1])
    except (OSError, ValueError):
        return 0
