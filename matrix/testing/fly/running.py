"""An emulator for acceptance tests and benchmarks: C{twistd matrix-fly} as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from shutil import rmtree
from typing import Any
from urllib.parse import urlencode, urlsplit

from matrix.processes import is_alive, read_pid_file
from matrix.testing.fly.emulator import TOKEN

START_SECONDS = 30.0
"""On a busy machine; an idle one takes one."""

STOP_SECONDS = 60.0
"""It ends all machines' processes."""

POLL_SECONDS = 0.02

_LAUNCH = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"
_ANNOUNCED = re.compile(r"Machines API at (http://\S+)")


class RunningEmulator:
    """
    It is made stopped. L{start}, L{stop} and L{kill} may be called in turns: the state and the
    port stay until L{close}, which leaves neither a process nor a file behind. Everything blocks.
    """

    token = TOKEN

    def __init__(self, program: str = "tiny", *options: str, **settings: object) -> None:
        """
        @param program: what machines run.
        @param options: more of the command line.
        @param settings: timings, chances and switches by their names.
        """
        self.home = Path(tempfile.mkdtemp(prefix="matrix-fly-"))
        self.state = self.home / "state"
        self.output_file = self.home / "output"
        self.url = ""
        self._listen = "127.0.0.1:0"
        self._words = [
            "--program", program, "--state-dir", str(self.state), "--token", self.token, *options,
            *(f"--set={name}={value}" for name, value in settings.items()),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RunningEmulator:
        """
        Start it and wait until it listens.

        @raise AssertionError: it does not; with its output.
        """
        before = len(self.output())
        words = ["--nodaemon", "--pidfile=", "matrix-fly", "--listen", self._listen, *self._words]
        with self.output_file.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _LAUNCH, *words],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        deadline = time.monotonic() + START_SECONDS
        while (announced := _ANNOUNCED.search(self.output(), before)) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the Fly emulator did not start:\n{self.output()}")
            time.sleep(POLL_SECONDS)
        self.url = announced[1]
        self._listen = urlsplit(self.url).netloc
        return self

    def output(self) -> str:
        """What it has printed, over all starts."""
        return self.output_file.read_text("utf-8") if self.output_file.exists() else ""

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None, "the Fly emulator was not started"
        return self._process.pid

    def stop(self) -> None:
        """End it, and its machines' processes."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a chance to do anything; the machines' processes run on."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End all, and remove all."""
        self.stop()
        for path in self.state.glob("machines/*/pid"):
            process = read_pid_file(path)
            if process is not None and is_alive(process):
                os.killpg(process.pid, signal.SIGKILL)
        rmtree(self.home)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """
        Make a call, of Fly's API below C{/v1} or of the emulator's below C{/_emulator}.

        @raise AssertionError: it was refused.
        """
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=STOP_SECONDS)
        headers = {"authorization": f"Bearer {self.token}"}
        sent = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, sent, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        assert response.status < 300, f"{method} {path}: {response.status} {content!r}"
        return json.loads(content) if content else None

    def calls(self, **filters: str) -> Mapping[str, Any]:
        """How often Fly was asked for what; with C{action} or C{subject}, those calls too."""
        calls: Mapping[str, Any] = self.ask("GET", f"/_emulator/calls?{urlencode(filters)}")
        return calls

    def fault(self, kind: str, **members: object) -> int:
        """Have something go wrong; the number to call it off with."""
        number: int = self.ask("POST", "/_emulator/faults", {"kind": kind, **members})["number"]
        return number

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
        if self._process is not None:
            self._process.wait(STOP_SECONDS)
