"""What tests with hostile clients and machines share: raw bytes in, and what came of them."""

from __future__ import annotations

import json
import shlex
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from matrix.testing.running_case import MatrixCase

PROGRAM = Path(__file__).with_name("hostile_machine.py")

SECONDS = 10.0
"""For one answer to arrive."""

Step = list[str | float]


class HostileCase(MatrixCase):
    """One Matrix with short limits, whose machines do what they are told to."""

    SETTINGS: ClassVar[Mapping[str, Any]] = {
        "local_command": shlex.join([sys.executable, str(PROGRAM), "{socket}"]),
        "handshake_timeout": 1,
        "head_timeout": 1,
        "body_timeout": 1,
        "keepalive_timeout": 2,
        "response_timeout": 2,
    }

    def setUp(self) -> None:
        self.token = self.matrix.token("alice")
        door = self.matrix.door
        self.host = f"{door.host}:{door.port}"
        self.signed = f"Host: {self.host}\r\nAuthorization: Bearer {self.token}\r\n".encode()
        self.seen()  # and the machine is awake

    def connect(self, **options: Any) -> Raw:
        """A connection of its own, with TLS."""
        raw = Raw(self.matrix.door.host, self.matrix.door.port, self.matrix.door.context, **options)
        self.addCleanup(raw.close)
        return raw

    def exchange(self, data: bytes, method: str = "GET") -> bytes:
        """All that is answered to some bytes, up to the end of the connection."""
        raw = self.connect()
        raw.send(data)
        return raw.rest()

    def seen(self) -> list[str]:
        """The heads that reached the machine since this was asked last."""
        data = self.exchange(b"GET /seen HTTP/1.1\r\n%bConnection: close\r\n\r\n" % self.signed)
        assert data.startswith(b"HTTP/1.1 200 "), data
        return list(json.loads(data.partition(b"\r\n\r\n")[2]))

    def say(self, *steps: Step, fields: bytes = b"", method: bytes = b"GET") -> bytes:
        """A request that has the machine do some steps."""
        told = json.dumps(steps).encode().hex().encode()
        return b"%b /say?%b HTTP/1.1\r\n%b%b\r\n" % (method, told, self.signed, fields)


def send(data: bytes, times: int = 1) -> Step:
    """The step of sending bytes, so many times."""
    return ["send", data.hex(), times]


def status(answer: bytes) -> int:
    """The status of an answer; 0 if there is none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


class Raw:
    """A connection that sends any bytes. Blocks."""

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext | None, name: str | None = None
    ) -> None:
        plain = socket.create_connection((host, port), SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = plain
        if context is not None:
            self.socket = context.wrap_socket(
                plain, server_hostname=name or host, suppress_ragged_eofs=False
            )

    def send(self, data: bytes) -> None:
        """Send bytes; who has closed already does not get them."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, ssl.SSLError):
            return

    def until(self, end: bytes) -> bytes:
        """Read until the bytes end so."""
        data = b""
        while not data.endswith(end):
            more = self.socket.recv(65536)
            assert more, f"it ended: {data!r}"
            data += more
        return data

    def rest(self) -> bytes:
        """Read to a proper end; a connection that is cut off ends in C{<cut off>}."""
        data = b""
        try:
            while more := self.socket.recv(65536):
                data += more
        except (ConnectionError, ssl.SSLError):
            data += b"<cut off>"
        return data

    def seconds_to_end(self) -> float:
        """How long it is until the other side ends the connection."""
        began = time.monotonic()
        self.rest()
        return time.monotonic() - began

    def close(self) -> None:
        """End it."""
        self.socket.close()
