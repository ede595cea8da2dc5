"""A machine for tests: an HTTP server that tells what it sees and does what it is asked to.

Run by path, with nothing but the standard library: C{machine_program.py ADDRESS DATA}, where
ADDRESS is a socket's path or a port.
"""

import json
import os
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit


def report(query):
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
        "status": open("/proc/self/status").read(),
    }


def read(query):
    """What comes of opening a path: its content, its entries, or the error's name."""
    path = query["path"][0]
    try:
        if os.path.isdir(path):
            return {"entries": os.listdir(path)}
        with open(path, "rb") as file:
            return {"content": file.read(1000).decode("latin-1")}
    except OSError as error:
        return {"error": type(error).__name__}


def hide(query):
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


def die(query):
    os._exit(3)


ANSWERS = {"/report": report, "/read": read, "/hide": hide, "/die": die}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        body = json.dumps(ANSWERS[url.path](parse_qs(url.query))).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "test"


class UnixServer(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self):
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "machine", 0


address = sys.argv[1]
print("machine listens on", address, flush=True)
if address.startswith("/"):
    UnixServer(address, Handler).serve_forever()
else:
    HTTPServer(("127.0.0.1", int(address)), Handler).serve_forever()
