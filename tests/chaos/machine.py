"""
A machine for chaos: it says whose it is, keeps a number in its data, and notices when it was
frozen with somebody's work on it.

Run by path, with nothing but the standard library, so that hundreds of them fit on one host:
C{machine.py HOST PORT DATA}. It takes requests only from who knows its secret and means its
user. What must not happen it writes to C{journal} in its data, a JSON object to a line.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

READ = 65536
HEAD_MAX = 65536
STACK = 256 * 1024
"""Bytes of each thread's; the usual eight million would be a lot of addresses for nothing."""

GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR
"""What poll(2) says of a connection whose other end is closed, be it that its last bytes are
still unread."""

FROZEN = "frozen under way"
"""What is written down of work that somebody still waited for."""

PULSE = 0.25
"""Seconds between two notes of the time, which stop when we are stopped."""

LATE = 0.05
"""Seconds, at most, until we notice that we go on. What came since then was not frozen; what was
frozen has stood still for longer."""

WEBSOCKET_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def content(user: str, nonce: str, size: int) -> bytes:
    """The one right body for a request."""
    piece = hashlib.sha256(f"{user} {nonce}".encode()).hexdigest().encode()
    return (piece * (size // len(piece) + 1))[:size]


@dataclass
class Request:
    """One request, its body read."""

    method: str
    path: str
    query: dict[str, str]
    fields: dict[str, str]
    body: bytes = b""

    @property
    def nonce(self) -> str:
        """What no other request has."""
        return self.query.get("nonce", "")

    def number(self, name: str, default: int = 0) -> int:
        """A parameter."""
        return int(self.query.get(name, default))


class Machine:
    """What it knows of itself, and of what it is busy with."""

    def __init__(self, data: str) -> None:
        self.user = os.environ["MATRIX_USER"]
        self.id = os.environ["FLY_MACHINE_ID"]
        self.authorization = f"Bearer {os.environ['MATRIX_MACHINE_TOKEN']}"
        self.note = os.path.join(data, "note")
        self.connections: set[Connection] = set()
        self._journal = os.path.join(data, "journal")
        self._check_owner(os.path.join(data, "owner"))

    def _check_owner(self, path: str) -> None:
        """The data are the user's, or nobody's yet."""
        if not os.path.exists(path):
            with open(path, "w", encoding="ascii") as file:
                file.write(self.user)
        with open(path, encoding="ascii") as file:
            owner = file.read()
        if owner != self.user:
            self.journal("data of another user", owner=owner)

    def journal(self, what: str, **details: object) -> None:
        """Something that must not be."""
        line = {"what": what, "at": time.time(), "user": self.user, "machine": self.id, **details}
        with open(self._journal, "a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")

    def watch(self) -> None:
        """Look each time that the host lets us go on: whatever still has somebody at its other
        end was frozen while it was under way."""
        while True:
            alive_at = time.monotonic()
            if signal.sigtimedwait({signal.SIGCONT}, PULSE) is not None:
                thawed_at = time.monotonic()
                for connection in list(self.connections):
                    if connection.moved_at < min(thawed_at - LATE, alive_at + PULSE + LATE):
                        self._examine(connection, alive_at)

    def _examine(self, connection: Connection, alive_at: float) -> None:
        if (work := connection.work) and not connection.is_gone():
            silent = max(0.0, round(alive_at - connection.moved_at, 2))
            told = {"work": work, "is_stream": connection.is_stream, "peer": connection.peer}
            self.journal(FROZEN, silent=silent, **told)


class Connection:
    """The router's, served by a thread of its own."""

    def __init__(self, sock: socket.socket, peer: str, machine: Machine) -> None:
        self.sock = sock
        self.peer = peer
        self.machine = machine
        self.work = ""
        """What is being done for somebody."""
        self.moved_at = 0.0
        """When bytes last went either way, by the monotonic clock."""
        self.is_stream = False
        self._unread = b""

    def is_gone(self) -> bool:
        """Whether the other end is closed."""
        poll = select.poll()
        try:
            poll.register(self.sock, GONE)
        except ValueError:
            return True  # we have just closed it
        return any(seen & GONE for _, seen in poll.poll(0))

    def serve(self) -> None:
        """Until one side has had enough."""
        self.machine.connections.add(self)
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := self._request()) is not None:
                if not self._answer(request):
                    break
                self.work, self.is_stream = "", False
        except (OSError, EOFError):
            pass  # the router closed it, as it may
        finally:
            self.work = ""
            self.machine.connections.discard(self)
            self.sock.close()

    # bytes

    def _read(self) -> bytes:
        data = self.sock.recv(READ)
        if not data:
            raise EOFError
        self.moved_at = time.monotonic()
        return data

    def _exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._unread += self._read()
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def _until(self, end: bytes) -> bytes:
        while end not in self._unread:
            self._unread += self._read()
        data, _, self._unread = self._unread.partition(end)
        return data

    def _write(self, data: bytes) -> None:
        self.sock.sendall(data)
        self.moved_at = time.monotonic()

    def _request(self) -> Request | None:
        try:
            head = self._until(b"\r\n\r\n").decode("latin-1")
        except EOFError:
            return None
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        url = urlsplit(target)
        pairs = (line.partition(":") for line in lines)
        fields = {name.lower(): value.strip() for name, _, value in pairs}
        request = Request(method, url.path, dict(parse_qsl(url.query)), fields)
        self.work = f"{method} {target}"
        request.body = self._body(fields)
        return request

    def _body(self, fields: dict[str, str]) -> bytes:
        if "100-continue" in fields.get("expect", ""):
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" not in fields.get("transfer-encoding", ""):
            return self._exactly(int(fields.get("content-length", "0")))
        body = b""
        while size := int(self._until(b"\r\n"), 16):
            body += self._exactly(size)
            self._exactly(2)
        self._until(b"\r\n")
        return body

    def _begin(self, request: Request, status: str, *lines: str) -> None:
        mark = f"X-Chaos: {self.machine.user} {self.machine.id} {request.nonce}"
        head = "\r\n".join((f"HTTP/1.1 {status}", mark, *lines))
        self._write(head.encode() + b"\r\n\r\n")

    def _whole(self, request: Request, body: bytes, status: str = "200 OK") -> bool:
        self._begin(request, status, f"Content-Length: {len(body)}")
        self._write(body)
        return True

    # answers

    def _answer(self, request: Request) -> bool:
        """Whether the connection can be used again."""
        if request.path == "/healthz":
            self.work = ""
            return self._whole(request, b"")
        if not self._is_for_us(request):
            return self._whole(request, b"", "421 Misdirected Request")
        time.sleep(request.number("wait") / 1000)
        match request.path:
            case "/give":
                body = content(self.machine.user, request.nonce, request.number("size"))
                return self._whole(request, body)
            case "/note":
                return self._note(request)
            case "/events":
                return self._events(request)
            case "/ws":
                return self._websocket(request)
        return self._whole(request, hashlib.sha256(request.body).hexdigest().encode())

    def _is_for_us(self, request: Request) -> bool:
        machine, fields = self.machine, request.fields
        user = fields.get("x-matrix-user")
        is_router = fields.get("authorization") == machine.authorization
        if user != machine.user or not is_router:
            machine.journal("another's request", whose=user, is_router=is_router)
            return False
        return True

    def _note(self, request: Request) -> bool:
        """A number that outlives everything."""
        path = self.machine.note
        if request.method == "PUT":
            with open(f"{path}.new", "wb") as file:
                file.write(request.body)
            os.rename(f"{path}.new", path)
        try:
            with open(path, "rb") as file:
                return self._whole(request, file.read())
        except FileNotFoundError:
            return self._whole(request, b"0")

    def _events(self, request: Request) -> bool:
        self.is_stream = True
        kind, framing = "Content-Type: text/event-stream", "Transfer-Encoding: chunked"
        self._begin(request, "200 OK", kind, framing)
        for number in range(request.number("count")):
            time.sleep(request.number("every") / 1000)
            event = f"data: {self.machine.user} {request.nonce} {number}\n\n".encode()
            self._write(b"%x\r\n%b\r\n" % (len(event), event))
        self._write(b"0\r\n\r\n")
        return True

    def _websocket(self, request: Request) -> bool:
        """Says whose it is, then echoes (RFC 6455); no message is longer than 64 KB."""
        self.is_stream = True
        key = request.fields["sec-websocket-key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_MAGIC).digest()).decode()
        lines = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}")
        self._begin(request, "101 Switching Protocols", *lines)
        self._frame(TEXT, f"{self.machine.user} {request.nonce}".encode())
        while True:
            first, second = self._exactly(2)
            size = second & 127
            if size == 126:
                size = int.from_bytes(self._exactly(2), "big")
            mask = self._exactly(4)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self._exactly(size)))
            if (kind := first & 15) == CLOSE:
                self.work = ""
                self._frame(CLOSE, data)
                return False
            self._frame(PONG if kind == PING else kind, data)

    def _frame(self, kind: int, data: bytes) -> None:
        length = bytes((len(data),)) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
        self._write(bytes((0x80 | kind,)) + length + data)


def serve(listener: socket.socket, machine: Machine) -> None:
    """Take connections until killed."""
    while True:
        sock, peer = listener.accept()
        connection = Connection(sock, f"{peer[0]}:{peer[1]}", machine)
        threading.Thread(target=connection.serve, daemon=True).start()


def main(host: str, port: int, data: str) -> None:
    """Serve, and look each time that the host lets us go on."""
    threading.stack_size(STACK)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    machine = Machine(data)
    listener = socket.create_server((host, port), backlog=128)
    threading.Thread(target=serve, args=(listener, machine), daemon=True).start()
    machine.watch()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
