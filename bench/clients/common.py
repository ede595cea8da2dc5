"""
How a load generator is told what to do, and tells what it saw.

It gets one JSON object as its argument, sets up, says C{ready}, waits for a line, measures, and
says its result as JSON; then it waits for a second line before it lets go of its connections.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """What to do. Each generator uses what it needs of it."""

    port: int
    ca: str
    token: str
    connections: int = 1
    seconds: float = 1.0
    resume: bool = False

    @classmethod
    def from_arguments(cls) -> Task:
        """Of the command line."""
        return cls(**json.loads(sys.argv[1]))

    def context(self) -> ssl.SSLContext:
        """One that trusts the site's authority."""
        return ssl.create_default_context(cafile=self.ca)

    def request(self, path: str, *lines: str) -> bytes:
        """A GET request with the token."""
        head = [f"GET {path} HTTP/1.1", f"Host: localhost:{self.port}"]
        head += [f"Authorization: Bearer {self.token}", *lines, "", ""]
        return "\r\n".join(head).encode("ascii")

    def websocket(self) -> bytes:
        """The request that opens a WebSocket."""
        return self.request(
            "/echo",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        )

    def connect(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        """A new connection, its handshake done."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname="localhost")


def ready() -> None:
    """Say that all is set up, and wait to be told to go on."""
    say("ready")
    sys.stdin.readline()


def finish(result: Mapping[str, Any]) -> None:
    """Say the result, and hold everything until told to end."""
    say(json.dumps(result))
    sys.stdin.readline()


def say(line: str) -> None:
    """To the bench."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def percentile(values: Sequence[float], share: float) -> float:
    """The value that C{share} (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
