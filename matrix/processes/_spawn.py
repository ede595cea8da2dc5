"""Starting a program that is nobody's child, in a clean room of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix.processes._proc import Process, host_boot

LAUNCHER = Path(__file__).with_name("launcher.py")

LAUNCH_SECONDS = 30.0
"""The launcher needs about 30 ms; a disk that hangs must not hold a thread for ever."""


class SpawnError(Exception):
    """The program could not be started; the text is one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and group a program runs as."""

    uid: int
    gid: int


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    identity: Identity | None,
    log: Path | None,
    reach: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    limits: Mapping[int, int] | None = None,
    pid_file: Path | None = None,
    hold: Sequence[int] = (),
) -> Process:
    """
    Start a program detached from us: its own session and process group (it leads both),
    no descriptor but 0-2, nothing in its environment but C{env}, umask 077, no way to
    gain privileges, signals as the system has them by default.

    B{Blocks for tens of milliseconds}: call it with C{deferToThreadPool}.

    With an C{identity} (we must be root) it also drops all groups, and directories that
    are closed to that identity are got round: where an ancestor of C{reach}, C{writable},
    C{cwd} or the program cannot be passed, the program gets a mount namespace of its own
    in which that ancestor holds these paths and nothing else.

    @param argv: the program and its arguments; found by C{env}'s C{PATH} if without a slash.
    @param cwd: where it runs; always writable to it as far as the modes allow.
    @param log: standard output and error are appended here (made with mode 0600);
        C{None} throws them away. Standard input is empty.
    @param reach: what it must be able to read; seen read-only if a mount is needed.
        Paths that do not exist are ignored.
    @param writable: what it must be able to write besides C{cwd}.
    @param limits: C{resource.RLIMIT_*} to value, soft and hard.
    @param pid_file: gets the process's identity before its first instruction runs, so that
        nothing runs unrecorded even if we are killed meanwhile; see L{read_pid_file}.
    @param hold: descriptors that the launcher (never the program) keeps open until the
        program is on record: a lock they carry then outlives us.
    @raise SpawnError: it does not run: no such program, not permitted, closed directories.
    """
    spec = {
        "argv": list(argv),
        "env": dict(env),
        "cwd": str(cwd.absolute()),
        "identity": None if identity is None else [identity.uid, identity.gid],
        "log": None if log is None else str(log.absolute()),
        "reach": [str(path.absolute()) for path in reach],
        "writable": [str(path.absolute()) for path in writable],
        "limits": list((limits or {}).items()),
        "pid_file": None if pid_file is None else str(pid_file.absolute()),
        "host_boot": host_boot(),
    }
    reply = _launch(json.dumps(spec).encode("ascii"), hold)
    if "error" in reply:
        raise SpawnError(str(reply["error"]))
    return Process(int(reply["pid"]), int(reply["started"]))


def _launch(spec: bytes, hold: Sequence[int]) -> dict[str, str | int]:
    """Run the launcher on a spec (on its standard input: it holds secrets)."""
    command = [sys.executable, "-I", "-S", str(LAUNCHER)]
    try:
        done = subprocess.run(
            command,
            input=spec,
            capture_output=True,
            env={},
            timeout=LAUNCH_SECONDS,
            check=False,
            pass_fds=hold,
        )
    except subprocess.TimeoutExpired:
        raise SpawnError(f"the launcher did not finish within {LAUNCH_SECONDS:.0f} s") from None
    except OSError as error:
        raise SpawnError(f"{sys.executable} cannot be run: {error.strerror}") from None
    try:
        reply = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise SpawnError(f"the launcher ended with {done.returncode}: {last}") from None
    return dict(reply)


def read_pid_file(path: Path) -> Process | None:
    """
    The process that C{spawn} recorded in C{path}, dead or alive. C{None} if there is no
    such file, it is damaged, or it is from before the host's last boot.
    """
    try:
        pid, started, boot = path.read_text("ascii").split()
        process = Process(int(pid), int(started))
    except (FileNotFoundError, ValueError):
        return None
    return process if boot == host_boot() else None
