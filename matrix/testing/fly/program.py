"""
A machine's program for tests: an HTTP server of few milliseconds and megabytes.

Run by path, with nothing but the standard library: C{program.py HOST PORT DATA}. Whatever is
asked for, it answers who it is; C{boots} is counted in the data, C{requests} in memory, so that
a resume can be told from a cold boot. C{EMULATOR_LISTEN_DELAY} in its environment holds its
port back for that many seconds; C{PUT} and C{GET} below C{/files/} keep bytes in the data.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time

HEAD_MAX = 65536
COUNTER = "boots"


def count_boot(data: str) -> int:
    """How often the data were booted with, this time included."""
    path = os.path.join(data, COUNTER)
    try:
        with open(path, encoding="ascii") as file:
            boots = int(file.read()) + 1
    except (FileNotFoundError, ValueError):
        boots = 1
    with open(path, "w", encoding="ascii") as file:
        file.write(str(boots))
    return boots


class Machine:
    """What it knows of itself."""

    def __init__(self, data: str) -> None:
        self.data = data
        self.boots = count_boot(data)
        self.requests = 0

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, object]]:
        """Status and document."""
        self.requests += 1
        if path.startswith("/files/"):
            return self.file(method, os.path.join(self.data, os.path.basename(path)), body)
        if path == "/environment":
            return 200, dict(os.environ)
        return 200, {
            "machine": os.environ.get("FLY_MACHINE_ID"),
            "user": os.environ.get("MATRIX_USER"),
            "address": os.environ.get("FLY_PRIVATE_IP"),
            "pid": os.getpid(),
            "boots": self.boots,
            "requests": self.requests,
        }

    def file(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, object]]:
        """Bytes that outlive the process."""
        if method == "PUT":
            with open(path, "wb") as file:
                file.write(body)
            return 201, {}
        try:
            with open(path, "rb") as file:
                return 200, {"content": file.read().decode("latin-1")}
        except FileNotFoundError:
            return 404, {}


class Connection:
    """One client's, kept open as long as it likes."""

    def __init__(self, sock: socket.socket, machine: Machine) -> None:
        self.sock = sock
        self.machine = machine
        self.data = b""

    def read(self) -> bool:
        """Answer what is complete; false when the client is gone."""
        try:
            got = self.sock.recv(HEAD_MAX)
        except ConnectionError:
            return False
        self.data += got
        while b"\r\n\r\n" in self.data:
            head, _, rest = self.data.partition(b"\r\n\r\n")
            length = body_length(head)
            if len(rest) < length:
                break
            self.data = rest[length:]
            method, path = head.split(b" ", 2)[:2]
            self.write(*self.machine.answer(method.decode(), path.decode(), rest[:length]))
        return bool(got) and len(self.data) < 100 * HEAD_MAX

    def write(self, status: int, document: dict[str, object]) -> None:
        """An answer; small enough for the socket's buffer."""
        body = json.dumps(document).encode()
        head = "HTTP/1.1 %d OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        try:
            self.sock.sendall((head % (status, len(body))).encode() + body)
        except ConnectionError:
            return


def body_length(head: bytes) -> int:
    """What the request says of its body's length, in bytes."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def main(host: str, port: int, data: str) -> None:
    """Serve until killed."""
    machine = Machine(data)
    time.sleep(float(os.environ.get("EMULATOR_LISTEN_DELAY", "0")))
    listener = socket.create_server((host, port), backlog=128)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                sock, _ = listener.accept()
                selector.register(sock, selectors.EVENT_READ, Connection(sock, machine))
            elif not key.data.read():
                selector.unregister(key.fileobj)
                key.data.sock.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
