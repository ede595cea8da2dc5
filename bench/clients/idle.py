"""Opens connections, uses each once, and holds them."""

from __future__ import annotations

import gc
import ssl
import sys

from bench.clients.common import Task, finish, ready


def use(connection: ssl.SSLSocket, request: bytes, body: int, status: bytes) -> None:
    """Send a request and read its whole answer."""
    connection.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < body:
        part = connection.recv(65536)
        if not part:
            raise SystemExit(f"the connection was closed after {data[:300]!r}")
        data += part
    if data.split(b" ", 2)[1] != status:
        raise SystemExit(f"unexpected answer: {data[:300]!r}")


def main(kind: str) -> None:
    """Hold plain keep-alive connections, or WebSockets."""
    gc.disable()  # its passes over ever more connections would cost more than the connections
    task = Task.from_arguments()
    context = task.context()
    if kind == "websocket":
        request, body, status = task.websocket(), 0, b"101"
    else:
        request, body, status = task.request("/1k"), 1024, b"200"
    first = task.connect(context)
    use(first, request, body, status)
    ready()
    held = [first]
    while len(held) < task.connections:
        connection = task.connect(context)
        use(connection, request, body, status)
        held.append(connection)
    finish({"connections": len(held)})


if __name__ == "__main__":
    main(sys.argv[2])
