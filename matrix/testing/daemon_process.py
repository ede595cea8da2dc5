"""The daemon as a process, as a provider starts it, and a blocking client of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TOKEN = "token-of-this-machine"  # noqa: S105 -- of machines in tests
START_LIMIT = 20.0
"""Seconds that a daemon may take to start on a machine that does much else."""


class Client:
    """One blocking connection to the daemon's socket; bytes are read as they come."""

    def __init__(self, place: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(place))
        self.rest = b""

    def send(self, method: str, path: str, body: bytes | None = None, **fields: str) -> None:
        """Send a request."""
        fields.setdefault("authorization", f"Bearer {TOKEN}")
        if body is not None:
            fields.setdefault("content_length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1", "host: machine"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    def until(self, mark: bytes) -> bytes:
        """Everything up to and including C{mark}."""
        while mark not in self.rest:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self.rest)
            self.rest += data
        found, _, self.rest = self.rest.partition(mark)
        return found + mark

    def head(self) -> tuple[int, dict[str, str]]:
        """An answer's status and fields."""
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), fields

    def body(self, fields: dict[str, str]) -> bytes:
        """The content after a head with these fields."""
        left = int(fields.get("content-length", "0"))
        while len(self.rest) < left:
            self.rest += self.socket.recv(65536)
        found, self.rest = self.rest[:left], self.rest[left:]
        return found

    def rest_of_it(self, fields: dict[str, str]) -> bytes:
        """The content, chunked or not."""
        if fields.get("transfer-encoding") != "chunked":
            return self.body(fields)
        found = b""
        while size := int(self.until(b"\r\n"), 16):
            found += self.body({"content-length": str(size + 2)})[:-2]
        return found

    def call(self, method: str, path: str, body: bytes | None = None, **fields: str) -> Any:
        """Send a request; the answer's status, fields and content."""
        self.send(method, path, body, **fields)
        status, answer = self.head()
        content = b"" if method == "HEAD" else self.body(answer)
        return status, answer, content

    def events(self) -> None:
        """Begin to follow the events."""
        self.send("GET", "/v1/events")
        self.head()
        self.until(b"\n\n")

    def event(self) -> dict[str, Any]:
        """The next event's data."""
        while True:
            block = self.until(b"\n\n")
            for line in block.split(b"\n"):
                if line.startswith(b"data: "):
                    data: dict[str, Any] = json.loads(line[6:])
                    return data


class DaemonProcess:
    """C{twistd matrix-daemon}, as the provider starts it."""

    def __init__(self, top: Path, **environment: str) -> None:
        """
        @param environment: what it is told beyond its token.
        """
        self.place, self.data = top / "s", top / "data"
        self.root = self.data / "workspace"
        self.log = top / "log"
        command = [
            sys.executable, "-P", "-c",
            "import sys; from twisted.scripts.twistd import run; sys.exit(run())",
            "--nodaemon", "--pidfile=", "matrix-daemon",
            "--listen", f"unix:{self.place}", "--data", str(self.data),
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=top,
                env={**os.environ, "MATRIX_MACHINE_TOKEN": TOKEN, **environment},
            )

    def ready(self, limit: float = START_LIMIT) -> float:
        """Wait until it answers; the seconds that took."""
        begin = time.monotonic()
        while time.monotonic() - begin < limit:
            if self.process.poll() is not None:
                raise AssertionError(self.log.read_text())
            try:
                status, _, _ = self.client().call("GET", "/healthz", authorization="none")
            except OSError:
                time.sleep(0.005)
            else:
                if status == 200:
                    return time.monotonic() - begin
                assert status == 503, status
                time.sleep(0.02)
        raise AssertionError("the daemon does not answer: " + self.log.read_text())

    def client(self) -> Client:
        """A new connection."""
        return Client(self.place)

    def stop(self) -> None:
        """End it as its provider does."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes of memory it uses."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith(field + ":")]
        return int(line.split()[1]) * 1024

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))
