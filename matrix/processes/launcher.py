"""
The way from us to a detached program: run by C{spawn} as C{python -I -S launcher.py}.

It reads what to start as JSON from standard input and answers with one JSON object on
standard output: C{{"pid": …, "started": …}} once the program runs, or C{{"error": "…"}}.
It is a program of its own because a process with threads may do next to nothing between
fork and exec, and because a mount namespace must not be ours. It imports nothing of Matrix.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MS_KEPT = 2 | 4 | 8 | 1024 | 2048
"""nosuid, nodev, noexec, noatime, nodiratime: a bind mount that is remounted read-only
must repeat them; their values are those of statvfs's flags."""
PR_SET_NO_NEW_PRIVS = 38
COVER = b"mode=0755,size=1m"
"""What covers a closed directory holds mount points only."""
ROUNDS = 16
"""Closed directories inside one another, at most: each round opens one level."""


class LaunchError(Exception):
    """The program cannot be started; the text goes to the caller."""


def main() -> None:
    """Start what standard input asks for and say how it went."""
    spec = json.load(sys.stdin.buffer)
    reply: dict[str, Any]
    try:
        pid, started = launch(spec)
        reply = {"pid": pid, "started": started}
    except LaunchError as error:
        reply = {"error": str(error)}
    except OSError as error:
        reply = {"error": f"cannot start {spec['argv'][0]}: {error}"}
    sys.stdout.write(json.dumps(reply))


def launch(spec: dict[str, Any]) -> tuple[int, int]:
    """Fork the program off; returns its process id and start ticks once it was executed."""
    if not os.path.isdir(spec["cwd"]):
        raise LaunchError(f"there is no directory {spec['cwd']} to run {spec['argv'][0]} in")
    output = open_output(spec["log"])
    if spec["identity"] is not None:
        check_identity(spec["identity"][0])
    go_read, go_write = os.pipe()
    error_read, error_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        os.close(error_read)
        run_program(spec, output, go_read, error_write)
    os.close(error_write)
    started = start_ticks(pid)
    if spec["pid_file"]:
        write_pid_file(spec["pid_file"], f"{pid} {started} {spec['host_boot']}\n")
    os.write(go_write, b"g")
    with os.fdopen(error_read, "rb") as errors:
        message = errors.read().decode("utf-8", "replace")
    if message:
        os.waitpid(pid, 0)
        if spec["pid_file"]:
            os.unlink(spec["pid_file"])
        raise LaunchError(message)
    return pid, started


def run_program(spec: dict[str, Any], output: int, go: int, errors: int) -> NoReturn:
    """Become the program, once C{go} says that it is on record; say on C{errors} if not."""
    try:
        os.setsid()
        if os.read(go, 1) != b"g":
            os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 2 and descriptor != errors:
                close_quietly(descriptor)
        default_signals()
        for number, value in spec["limits"]:
            resource.setrlimit(number, (value, value))
        if spec["identity"] is not None:
            os.umask(0o022)  # what is made to mount on must be open to the program
            open_the_way(wanted_paths(spec), *spec["identity"])
        os.umask(0o077)
        drop_privileges(spec["identity"])
        os.chdir(spec["cwd"])
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606 - no shell wanted
    except BaseException as error:  # noqa: BLE001 - the caller gets it; there is nobody else
        os.write(errors, explain(spec, error).encode("utf-8", "replace"))
    os._exit(127)


def explain(spec: dict[str, Any], error: BaseException) -> str:
    """One line on why the program does not run."""
    if isinstance(error, LaunchError):
        return str(error)
    program = spec["argv"][0]
    uid = spec["identity"][0] if spec["identity"] else os.getuid()
    if isinstance(error, FileNotFoundError):
        where = "" if "/" in program else f" on PATH {spec['env'].get('PATH', os.defpath)}"
        why = f"there is no such program{where}, or the interpreter it names is missing"
    elif isinstance(error, PermissionError):
        why = f"user {uid} may not run it; check its mode and the directories above it"
    else:
        why = str(error)
    return f"cannot start {program}: {why}"


def close_quietly(descriptor: int) -> None:
    """Close what may have been closed already (the listing's own descriptor is)."""
    try:
        os.close(descriptor)
    except OSError:
        return


def default_signals() -> None:
    """
    Have every signal do what it does by default: what we, or the shell that started us in
    the background, ignore or block would otherwise stay so across exec.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def drop_privileges(identity: list[int] | None) -> None:
    """Take on the identity for good and give up every way to gain privileges."""
    if identity is not None and os.geteuid() == 0:
        uid, gid = identity
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def check_identity(uid: int) -> None:
    """@raise LaunchError: we cannot become this user."""
    if os.geteuid() != 0 and uid != os.geteuid():
        raise LaunchError(f"only root can run a program as user {uid}; we are {os.geteuid()}")


def open_output(path: str | None) -> int:
    """Where the program's output goes."""
    if path is None:
        return os.open(os.devnull, os.O_WRONLY)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def start_ticks(pid: int) -> int:
    """Field 22 of proc(5)'s C{stat}."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def write_pid_file(path: str, text: str) -> None:
    """Write it whole or not at all."""
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def wanted_paths(spec: dict[str, Any]) -> dict[str, bool]:
    """Every path that the program must get at, with whether read-only is enough."""
    wanted = dict.fromkeys([spec["cwd"], *spec["writable"]], False)
    for path in spec["reach"]:
        wanted.setdefault(path, True)
    for link in program_links(spec["argv"][0], spec["env"]):
        if not any(link.startswith(path + "/") for path in wanted):
            wanted[link] = True
    for path, read_only in list(wanted.items()):
        wanted.setdefault(os.path.realpath(path), read_only)
    return {path: read_only for path, read_only in wanted.items() if os.path.exists(path)}


def program_links(program: str, env: dict[str, str]) -> Iterator[str]:
    """The program's path and each symbolic link on the way from it to the real file."""
    if "/" not in program:
        places = (os.path.join(place, program) for place in os.get_exec_path(env))
        program = next((place for place in places if os.access(place, os.X_OK)), "")
    seen: set[str] = set()
    while program and program not in seen:
        seen.add(program)
        yield program
        if not os.path.islink(program):
            return
        program = os.path.normpath(os.path.join(os.path.dirname(program), os.readlink(program)))


def open_the_way(wanted: dict[str, bool], uid: int, gid: int) -> None:
    """
    Make every wanted path reachable to the identity, in a mount namespace if it takes one.

    @raise LaunchError: it cannot be done; names the directory in the way.
    """
    sources: dict[str, int] = {}
    for _ in range(ROUNDS):
        with seen_as(uid, gid):
            closed = sorted({way for path in wanted if (way := blocked_at(path))})
        if not closed:
            check_open(wanted, uid, gid)
            return
        try:
            if not sources:
                call("unshare", CLONE_NEWNS)
                call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
                # Opened in the new namespace: a bind mount takes no source from another one.
                sources = {path: os.open(path, os.O_PATH) for path in wanted}
            for directory in closed:
                cover(directory, sources, wanted)
        except OSError as error:
            raise LaunchError(closed_message(closed[0], uid, str(error.strerror))) from error
    raise LaunchError(closed_message(closed[0], uid, f"more than {ROUNDS} closed levels"))


def closed_message(directory: str, uid: int, why: str) -> str:
    """What the operator reads."""
    return (
        f"the directory {directory} is closed to user {uid}, and a private view of it cannot "
        f"be made here ({why}): set MATRIX_STATE_DIR to a place below open directories, such "
        f"as /var/lib/matrix, or allow passing through with: chmod o+x {directory}"
    )


@contextmanager
def seen_as(uid: int, gid: int) -> Iterator[None]:
    """Ask the kernel as this identity, supplementary groups and capabilities put aside."""
    if os.geteuid() != 0:
        yield
        return
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def blocked_at(path: str) -> str | None:
    """The topmost directory above C{path} that we, as we are now, may not pass."""
    place = ""
    for part in path.split("/")[:-1]:
        place += part + "/"
        if not os.access(place, os.X_OK, effective_ids=True):
            return place.rstrip("/") or "/"
    return None


def check_open(wanted: dict[str, bool], uid: int, gid: int) -> None:
    """@raise LaunchError: a wanted path can be reached, but is itself closed."""
    with seen_as(uid, gid):
        for path in filter(os.path.isdir, wanted):
            if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
                raise LaunchError(
                    f"{path} is closed to user {uid}: allow reading with: chmod -R o+rX {path}"
                )


def cover(directory: str, sources: dict[str, int], wanted: dict[str, bool]) -> None:
    """Put an empty place over C{directory} and in it only the sources that lie below."""
    call("mount", b"none", os.fsencode(directory), b"tmpfs", 0, COVER)
    for path in sorted(sources, key=len):
        if not path.startswith(directory.rstrip("/") + "/"):
            continue
        make_mount_point(path, os.path.isdir(f"/proc/self/fd/{sources[path]}"))
        target, source = os.fsencode(path), b"/proc/self/fd/%d" % sources[path]
        call("mount", source, target, None, MS_BIND | MS_REC, None)
        if wanted[path]:
            kept = os.statvfs(path).f_flag & MS_KEPT
            call("mount", None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept, None)


def make_mount_point(path: str, directory: bool) -> None:
    """Something of the right kind to mount on."""
    os.makedirs(path if directory else os.path.dirname(path), mode=0o755, exist_ok=True)
    if not directory and not os.path.exists(path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def call(name: str, *arguments: int | bytes | None) -> None:
    """Call a function of the C library that Python 3.11 does not offer."""
    values = [ctypes.c_ulong(item) if isinstance(item, int) else item for item in arguments]
    if getattr(LIBC, name)(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


LIBC = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    main()
