"""What a peer is: a proxy that can be started, addressed, watched and stopped."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from bench.processes import PROXY_CORE, BenchError, Usage, accepts, end, launch, wait_until
from bench.site import Site


class Peer(ABC):
    """One proxy. It is made stopped."""

    name: ClassVar[str]
    settings: ClassVar[str]
    """What is not the proxy's default, in words."""
    scheme: ClassVar[str] = "https"

    def __init__(self, site: Site) -> None:
        self.site = site
        self.directory = site.directory(self.name)
        self.token = site.token
        self.port = 0

    @property
    def url(self) -> str:
        """Of the proxy, without a slash at the end."""
        return f"{self.scheme}://localhost:{self.port}"

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Of the program."""

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it serves."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it; no process is left."""

    @abstractmethod
    def usage(self) -> Usage:
        """Of its processes, without the backend."""


class Program(Peer):
    """A peer that is one program with a port of ours."""

    process: subprocess.Popen[bytes] | None = None

    def launch(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start the program and wait until it listens."""
        log = self.directory / "output"
        self.process = process = launch(command, PROXY_CORE, log, env)

        def listens() -> bool:
            if process.poll() is not None:
                raise BenchError(f"{self.name} ended: {log.read_text(errors='replace')[-2000:]}")
            return accepts(("127.0.0.1", self.port))

        wait_until(listens, f"{self.name} listens")

    def stop(self) -> None:
        """As the base class says."""
        if self.process is not None:
            end(self.process)

    def usage(self) -> Usage:
        """As the base class says."""
        if self.process is None:
            raise BenchError(f"{self.name} was not started")
        return Usage(self.process.pid)


class Direct(Peer):
    """No proxy: the backend itself, without TLS, for what the load generators add."""

    name = "direct"
    settings = "the backend itself over plain TCP; what the load generator alone measures"
    scheme = "http"

    @classmethod
    def version(cls) -> str:
        """It is a part of the bench."""
        return ""

    def start(self) -> None:
        """The site's backend runs already."""
        self.port = self.site.port

    def stop(self) -> None:
        """The site stops its backend."""

    def usage(self) -> Usage:
        """Of nothing: there is no proxy."""
        return Usage(0)


def said(command: Sequence[str]) -> str:
    """What a program says of its version, first line; that it is absent is an answer too."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return f"{Path(command[0]).name} is absent"
    return (done.stdout + done.stderr).strip().partition("\n")[0]
