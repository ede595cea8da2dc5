"""
A machine for tests: an HTTP server that tells what it sees and does what it is asked to.

Run by path, with nothing but the standard library: C{machine_program.py ADDRESS [...]}, where
ADDRESS is a socket's path or a port.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

Query = dict[str, list[str]]


def report(query: Query) -> dict[str, Any]:
    """Everything that a process knows of itself."""
    return {
        "pid": os.getpid(),
        "argv": sys.argv[1:],
        "environment": dict(os.environ),
        "descriptors": sorted(
            os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")[:-1]
        ),
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "session": os.getsid(0),
        "cwd": os.getcwd(),
        "umask": os.umask(0o077),
        "status": Path("/proc/self/status").read_text(),
    }


def read(query: Query) -> dict[str, Any]:
    """What comes of opening a path: its content, its entries, or the error's name."""
    path = query["path"][0]
    try:
        if os.path.isdir(path):
            return {"entries": os.listdir(path)}
        with open(path, "rb") as file:
            return {"content": file.read(1000).decode("latin-1")}
    except OSError as error:
        return {"error": type(error).__name__}


def hide(query: Query) -> dict[str, Any]:
    """A process that left the session, was forked twice, and ignores polite requests."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writer, str(os.getpid()).encode())
            time.sleep(600)
        os._exit(0)
    os.wait()
    return {"pid": int(os.read(reader, 20))}


def die(query: Query) -> NoReturn:
    """End without a word."""
    os._exit(3)


ANSWERS = {"/report": report, "/read": read, "/hide": hide, "/die": die}


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        """Called by the base class."""
        url = urlsplit(self.path)
        known = ANSWERS.get(url.path)
        body = json.dumps(known(parse_qs(url.query)) if known else {}).encode()
        self.send_response(200 if known else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """A unix socket's peer has no address for the log line."""
        return "test"


class UnixServer(HTTPServer):
    """The same on a unix socket."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Called by the base class; it would look up a host's name."""
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "machine", 0


def main(address: str) -> None:
    """Serve until killed."""
    server = (
        UnixServer(address, Handler)  # type: ignore[arg-type]  # a path is its address
        if address.startswith("/")
        else HTTPServer(("127.0.0.1", int(address)), Handler)
    )
    sys.stdout.write(f"machine listens on {address}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
