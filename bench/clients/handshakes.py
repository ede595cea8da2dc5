"""Opens TLS connections as fast as it can, and closes each after its handshake."""

from __future__ import annotations

import selectors
import socket
import ssl
import time

from bench.clients.common import Task, finish, ready

AT_ONCE = 16


class Handshakes:
    """Some handshakes at a time, on one selector."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._context = task.context()
        # Its own checks would make the client the slower side.
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._session = self._first_session() if task.resume else None
        self._selector = selectors.DefaultSelector()
        self.done = self.resumed = 0

    def _first_session(self) -> ssl.SSLSession | None:
        """TLS 1.3 tickets follow the handshake: read an answer, so that one has come."""
        connection = self._task.connect(self._context)
        connection.sendall(self._task.request("/1k", "Connection: close"))
        while connection.recv(65536):
            pass
        return connection.session

    def run(self, seconds: float) -> float:
        """@return: handshakes per second."""
        self.done = self.resumed = 0
        began = time.monotonic()
        for _ in range(AT_ONCE):
            self._open()
        while time.monotonic() < began + seconds:
            for key, _ in self._selector.select(1.0):
                self._step(key.fileobj)
        rate = self.done / (time.monotonic() - began)
        for key in list(self._selector.get_map().values()):
            self._close(key.fileobj)
        return rate

    def _open(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self._task.port))
        plain.setblocking(False)
        connection = self._context.wrap_socket(
            plain,
            server_hostname="localhost",
            do_handshake_on_connect=False,
            session=self._session,
        )
        self._selector.register(connection, selectors.EVENT_READ)
        self._step(connection)

    def _step(self, connection: object) -> None:
        assert isinstance(connection, ssl.SSLSocket)
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.done += 1
        self.resumed += bool(connection.session_reused)
        self._close(connection)
        self._open()

    def _close(self, connection: object) -> None:
        assert isinstance(connection, ssl.SSLSocket)
        self._selector.unregister(connection)
        connection.close()


def main() -> None:
    """Measure new or resumed handshakes."""
    task = Task.from_arguments()
    handshakes = Handshakes(task)
    handshakes.run(0.3)
    ready()
    rate = handshakes.run(task.seconds)
    if task.resume and handshakes.resumed < handshakes.done * 0.99:
        raise SystemExit(f"only {handshakes.resumed} of {handshakes.done} were resumed")
    finish({"rate": rate, "count": handshakes.done})


if __name__ == "__main__":
    main()
