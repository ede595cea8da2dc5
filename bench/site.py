"""What all peers of a run share: a directory, a certificate, a token and the backend."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.processes import LOAD_CORE, accepts, end, free_port, launch, wait_until
from matrix.net import LocalAuthority
from matrix.testing.issuer import LocalIssuer

ROOT = Path(__file__).resolve().parent.parent
BACKEND = Path(__file__).with_name("backend.py")
CACHE = Path(__file__).with_name(".cache")
TOKEN_SECONDS = 86400.0
"""The token outlives any run."""


class Site:
    """A private directory with what a run needs; L{close} leaves nothing behind."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="matrix-bench-"))
        self.ca, self.cert, self.key = LocalAuthority(self.home / "tls").ensure()
        self.issuer_keys = self.home / "issuer"
        issuer = LocalIssuer.open(self.issuer_keys)
        self.issuer = issuer.issuer
        self.token = issuer.mint("alice", life=TOKEN_SECONDS)
        self.jwks = json.dumps({"keys": issuer.keys.listed()})
        self.socket = str(self.home / "backend.sock")
        self.port = free_port()
        self._backend: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the backend of all peers but Matrix, whose machine runs the same program."""
        command = [sys.executable, str(BACKEND), self.socket, str(self.port)]
        self._backend = launch(command, LOAD_CORE, self.home / "backend.log")
        wait_until(lambda: accepts(self.socket), "the backend listens")
        wait_until(lambda: accepts(("127.0.0.1", self.port)), "the backend listens")

    def directory(self, name: str) -> Path:
        """An empty directory for a peer."""
        directory = self.home / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory

    def close(self) -> None:
        """Stop the backend and remove everything."""
        if self._backend is not None:
            end(self._backend)
        shutil.rmtree(self.home)
