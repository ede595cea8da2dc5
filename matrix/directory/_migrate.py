"""Bringing the database's tables to the form that this version needs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg2
from psycopg2.extensions import connection as Connection
from yoyo import internalmigrations, read_migrations
from yoyo.backends.core.postgresql import PostgresqlBackend
from yoyo.migrations import Migration, default_migration_table

SCHEMA = Path(__file__).parent / "schema"

LOCK_KEY = 0x6D61_7472_6978_0001
"""The advisory lock that one migrating process holds: "matrix", 1. Unlike yoyo's own lock, a
row, it ends with the process that holds it."""

OLDEST_SERVER = 140000
"""PostgreSQL 14, in libpq's way of writing it: CREATE OR REPLACE TRIGGER is needed."""

CONNECT_SECONDS = 10
"""Start-up waits no longer than this for a database that does not answer."""


@dataclass(frozen=True)
class _Target:
    """What yoyo's backend asks of its database's address."""

    dsn: str
    database: str | None


class _Backend(PostgresqlBackend):  # type: ignore[misc]
    """
    Connects by libpq's connection string, which yoyo's own parser knows only in part, and
    signs yoyo's log without a look-up of names: DNS may be down, our uid without a name.
    """

    def connect(self, dburi: _Target) -> Connection:
        """Called by yoyo, several times."""
        connection = psycopg2.connect(dburi.dsn, connect_timeout=CONNECT_SECONDS)
        connection.autocommit = True
        return connection

    def get_log_data(
        self, migration: Migration | None = None, operation: str = "apply"
    ) -> dict[str, object]:
        """One row of yoyo's log."""
        return {
            "id": str(uuid4()),
            "migration_id": migration and migration.id,
            "migration_hash": migration and migration.hash,
            "username": str(os.geteuid()),
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }


def migrate(dsn: str) -> None:
    """
    Apply the migrations that the database does not have yet. Several processes may call
    this at once: one does it, the others wait.

    B{Blocks}: call it in a thread.

    @raise psycopg2.Error: the database is unreachable, or refuses.
    """
    with _locked_backend(dsn) as backend:
        backend.apply_migrations(backend.to_apply(read_migrations(str(SCHEMA))))


def roll_back(dsn: str) -> None:
    """
    Undo every migration: the tables are gone, and all that was in them.

    B{Blocks}: call it in a thread.

    @raise psycopg2.Error: the database is unreachable, or refuses.
    """
    with _locked_backend(dsn) as backend:
        backend.rollback_migrations(backend.to_rollback(read_migrations(str(SCHEMA))))


@contextmanager
def _locked_backend(dsn: str) -> Iterator[_Backend]:
    """A yoyo backend that nobody else of ours uses meanwhile."""
    target = _Target(dsn, psycopg2.extensions.parse_dsn(dsn).get("dbname"))
    with (
        _Backend(target, default_migration_table) as backend,
        closing(backend.cursor()) as cursor,
    ):
        version = backend.connection.server_version
        if version < OLDEST_SERVER:
            raise psycopg2.NotSupportedError(
                f"it is PostgreSQL {version // 10000}, "
                f"and {OLDEST_SERVER // 10000} or later is needed"
            )
        cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        # Done here because yoyo does it under its lock row, which outlives a crash.
        if internalmigrations.needs_upgrading(backend):
            internalmigrations.upgrade(backend)
        yield backend
