"""What acceptance tests share: one running Matrix for all tests of a class."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest import TestCase

from matrix.testing.running import RunningMatrix, state_of
from matrix.testing.wire import Answer, Door, Headers

REST_SECONDS = 15.0
"""For a machine to fall asleep once it is time, on a busy host."""


class MatrixCase(TestCase):
    """A Matrix that is started before the first test of the class and gone after the last."""

    SETTINGS: ClassVar[Mapping[str, Any]] = {}
    """For L{RunningMatrix}."""

    matrix: Any = None
    """The L{RunningMatrix}."""

    @classmethod
    def setUpClass(cls) -> None:
        if cls.matrix is None:
            cls.matrix = RunningMatrix(**cls.SETTINGS)
            cls.addClassCleanup(cls.forget)
            cls.matrix.start()

    @classmethod
    def forget(cls) -> None:
        """End this class's Matrix."""
        matrix, cls.matrix = cls.matrix, None
        matrix.close()

    @classmethod
    @contextmanager
    def shared(cls) -> Iterator[None]:
        """One Matrix for all subclasses: for a fixture of a module, since each start takes
        seconds."""
        cls.matrix = RunningMatrix(**cls.SETTINGS)
        try:
            cls.matrix.start()
            yield
        finally:
            cls.forget()

    def ask(
        self,
        user: str,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Headers | None = None,
        seconds: float = 60.0,
    ) -> Answer:
        """What a user is answered to one request."""
        token = self.matrix.token(user)
        door: Door = self.matrix.door
        return door.ask(method, path, token, headers, body, seconds=seconds)

    def states(self, user: str) -> set[str]:
        """The states of all processes of a user's machine."""
        return {state_of(pid) for pid in self.matrix.machine_processes(user)}

    def until_asleep(self, user: str) -> None:
        """Wait until a machine has fallen asleep, and its row says so."""
        self.matrix.until(
            lambda: self.states(user) == {"T"} and self.row(user)["state"] == "suspended",
            self.matrix.idle + REST_SECONDS,
            f"{user}'s machine is asleep",
        )

    def row(self, user: str) -> Mapping[str, Any]:
        """The row of a user's machine."""
        row: Mapping[str, Any] | None = self.matrix.machine(user)
        assert row is not None, f"{user} has no machine"
        return row

    def tell(self, what: str, **figures: object) -> None:
        """Print what was measured; pytest shows it with C{-rP} or C{-s}."""
        told = ", ".join(f"{name} {value}" for name, value in figures.items())
        sys.stdout.write(f"\n[measured] {what}: {told}\n")
