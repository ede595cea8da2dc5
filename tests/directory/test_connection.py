"""One connection to PostgreSQL: its end is told once, however the driver comes to know of it."""

from __future__ import annotations

from typing import Any

import psycopg2
from psycopg2.extensions import POLL_OK
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory._connection import Connection


class Driver:
    """A psycopg2 connection whose server has gone."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.closed = 0
        self.notifies: list[Any] = []

    def poll(self) -> int:
        if self.error is not None:
            raise self.error
        return POLL_OK

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self.closed = 1


class Loop:
    """A reactor that, as asyncio's, refuses to watch what is no descriptor."""

    def addReader(self, reader: Any) -> None:
        if reader.fileno() < 0:
            raise ValueError("Invalid file descriptor: -1")

    def removeReader(self, reader: Any) -> None:
        """None is watched."""

    removeWriter = removeReader


class EndTests(SynchronousTestCase):
    def ended(self, error: Exception | None) -> Connection:
        told: list[str] = []
        connection = Connection(Loop(), lost=lambda: told.append("lost"))
        connection._connection = Driver(error)
        connection.doRead()
        self.assertEqual(told, ["lost"])
        return connection

    def test_an_error_is_its_end(self) -> None:
        self.assertFalse(self.ended(psycopg2.OperationalError("terminating")).alive)

    def test_so_is_a_socket_that_was_closed_unnoticed(self) -> None:
        self.assertFalse(self.ended(None).alive)
