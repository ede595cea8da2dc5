"""A real PostgreSQL for tests: one server per process, a database of its own per test."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from uuid import uuid4

import psycopg2

from matrix.directory._cluster import Cluster, find_installation
from matrix.directory._migrate import migrate
from matrix.directory._postmaster import Postmaster
from matrix.errors import ConfigurationError

PREFIX = "matrix-postgres-"
TEMPLATE = "migrated"


@cache
def server() -> Postmaster:
    """
    The server of this process: started at the first call, ended at the process's exit.
    Its data are not safe against a power cut; for tests that is fine.
    """
    sweep()
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    directory.chmod(0o711)  # PostgreSQL does not run as root, and must get to its data
    postmaster = Postmaster(cluster_in(directory))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    postmaster.start()
    atexit.register(postmaster.stop)
    execute(f"CREATE DATABASE {TEMPLATE}", postmaster.dsn("postgres"))
    migrate(postmaster.dsn(TEMPLATE))
    return postmaster


def cluster_in(directory: Path) -> Cluster:
    """The cluster of a directory that L{server} made."""
    return Cluster(directory / "cluster", find_installation(), durable=False)


def sweep() -> None:
    """End the servers of test processes that were killed, and remove what they left."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not (directory / "cluster" / "postgres.pid").exists():
            continue
        cluster = cluster_in(directory)
        try:
            cluster.acquire()
        except ConfigurationError:
            continue  # its process lives
        try:
            Postmaster(cluster).end_predecessor()
        finally:
            cluster.release()
        shutil.rmtree(directory, ignore_errors=True)


def execute(statement: str, dsn: str | None = None) -> list[tuple[object, ...]]:
    """Run one statement as superuser, blocking; by default in the database C{postgres}."""
    with closing(psycopg2.connect(dsn or server_dsn())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []


def server_dsn() -> str:
    """The connection string of the database C{postgres}."""
    return server().dsn("postgres")


def fresh_database(*, migrated: bool = True) -> str:
    """
    The connection string of a new database, by default with all tables, and empty.
    Give it back with L{drop_database}.
    """
    name = f"test_{uuid4().hex}"
    template = TEMPLATE if migrated else "template1"
    execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return server().dsn(name)


def drop_database(dsn: str) -> None:
    """Drop a L{fresh_database}, whoever is still connected."""
    name = psycopg2.extensions.parse_dsn(dsn)["dbname"]
    execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
