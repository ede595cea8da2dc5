"""What the directory does while PostgreSQL is gone, restarts, hangs, or refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from matrix.directory import (
    DirectoryUnavailable,
    PostgresDirectory,
    _connection,
    _listener,
    _pool,
    migrate,
    open_directory,
)
from matrix.directory._cluster import Cluster, find_installation
from matrix.directory._connection import Connection
from matrix.directory._migrate import SCHEMA, roll_back
from matrix.directory._postmaster import Postmaster
from matrix.errors import ConfigurationError
from matrix.model import AccessChange, MachineState, UserId
from matrix.testing import postgres
from matrix.testing.directory_suite import anybody

from .test_directory_postgres import DatabaseCase, until

OTHERS = "pid <> pg_backend_pid() AND datname = current_database()"
MIGRATIONS = len([*SCHEMA.glob("*.sql")]) - len([*SCHEMA.glob("*.rollback.sql")])
TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"


def started(awaitable: object) -> Deferred[object]:
    """Run something in the background."""
    return ensureDeferred(awaitable)


class BrokenConnectionTests(DatabaseCase):
    """The server ends connections."""

    def backends(self) -> int:
        """How many connections the directory has."""
        [(count,)] = self.sql(f"SELECT count(*) FROM pg_stat_activity WHERE {OTHERS}")
        return int(str(count))

    def terminate(self) -> None:
        """End them all."""
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}")

    async def test_idle_connections_are_replaced_unnoticed(self) -> None:
        who = anybody()
        heard: list[UserId | None] = []
        self.directory.watch(heard.append)
        await gatherResults([started(self.directory.admit(anybody(), "")) for _ in range(9)])
        self.assertEqual(self.backends(), 5)
        self.terminate()
        await until(lambda: self.directory.stale_since() is not None)
        await until(lambda: self.directory.stale_since() is None)
        self.assertEqual(heard, [None])
        await self.directory.admit(who, "x@example.org")
        await self.directory.create_machine(who, "local")
        await until(lambda: heard == [None, who])
        self.assertEqual(self.backends(), 2)

    async def test_who_may_come_in_is_told_again_after_a_loss(self) -> None:
        session, other = str(anybody()), str(anybody())
        heard: list[AccessChange | None] = []
        self.directory.sessions.watch(heard.append)
        await self.directory.sessions.revoke(session, "operator")
        await until(lambda: heard == [AccessChange(session_id=session)])
        self.terminate()
        await until(lambda: len(heard) == 2)
        self.assertIsNone(heard[-1])
        await self.directory.sessions.revoke(other, "operator")
        await until(lambda: heard[2:] == [AccessChange(session_id=other)])

    async def test_what_another_version_tells_is_as_if_it_had_been_missed(self) -> None:
        heard: list[AccessChange | None] = []
        self.directory.sessions.watch(heard.append)
        self.sql("SELECT pg_notify('access', 'group 7 closed'), pg_notify('access', '')")
        await until(lambda: heard == [None, None])

    async def test_a_query_cut_short_fails_clearly_and_the_next_works(self) -> None:
        query = self.directory._pool.query("SELECT pg_sleep(30)")
        await until(lambda: bool(self.sleeping()))
        self.terminate()
        error = await self.outage(query)
        self.assertIn("terminating connection", str(error))
        self.assertIsNone(await self.directory.user(anybody()))

    def sleeping(self) -> list[tuple[object, ...]]:
        """The queries that are at it on the server."""
        return self.sql(
            "SELECT pid FROM pg_stat_activity"
            f" WHERE {OTHERS} AND state = 'active' AND query LIKE 'SELECT pg_sleep%'"
        )

    async def outage(self, awaitable: object) -> DirectoryUnavailable:
        """The outage that a call reports."""
        try:
            await awaitable
        except DirectoryUnavailable as error:
            self.assertNotIn("\n", str(error))
            return error
        raise self.failureException("it worked")

    async def test_a_query_cancelled_by_an_operator_is_an_outage_not_our_cancellation(self) -> None:
        query = self.directory._pool.query("SELECT pg_sleep(30)")
        await until(lambda: bool(self.sleeping()))
        self.sql(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {OTHERS}")
        await self.outage(query)
        self.assertIsNone(await self.directory.user(anybody()))

    async def test_a_server_that_became_read_only_is_left(self) -> None:
        await self.directory.admit(anybody(), "")
        name = urlsplit(self.dsn).path[1:]
        self.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        before = self.directory._pool._idle[:]
        self.terminate()
        await until(lambda: not any(connection.alive for connection in before))
        error = await self.outage(self.directory.admit(anybody(), ""))
        self.assertIn("read-only", str(error))
        postgres.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await self.directory.admit(anybody(), "")

    async def test_a_statements_own_error_keeps_the_connection(self) -> None:
        [(before,)] = await self.directory._pool.query("SELECT pg_backend_pid()")
        with self.assertRaises(psycopg2.errors.DivisionByZero):
            await self.directory._pool.query("SELECT 1/0")
        self.assertEqual(await self.directory._pool.query("SELECT pg_backend_pid()"), [(before,)])

    async def test_cancelling_the_caller_leaves_write_and_connection_whole(self) -> None:
        who = anybody()
        [(before,)] = await self.directory._pool.query("SELECT pg_backend_pid()")
        writing = self.directory._pool.query(
            "INSERT INTO users (id) SELECT %s FROM pg_sleep(0.1) RETURNING id", (who,)
        )
        writing.addErrback(lambda failure: None)
        await deferLater(reactor, 0.02)
        writing.cancel()
        await deferLater(reactor, 0.2)
        self.assertIsNotNone(await self.directory.user(who))
        self.assertEqual(await self.directory._pool.query("SELECT pg_backend_pid()"), [(before,)])

    async def test_connections_are_bounded_and_waiting_has_an_end(self) -> None:
        sleeps = [self.directory._pool.query("SELECT pg_sleep(0.05)") for _ in range(40)]
        await gatherResults(sleeps)
        self.assertEqual(self.backends(), 5)
        self.patch(_pool, "QUERY_SECONDS", 0.2)
        hogs = [self.directory._pool.query("SELECT pg_sleep(0.6)") for _ in range(8)]
        late = self.directory._pool.query("SELECT 1")
        error = await self.outage(late)
        self.assertIn("connections were busy", str(error))
        for hog in hogs:
            self.assertIn("did not answer within 0.2 s", str(await self.outage(hog)))
        await until(lambda: not self.sleeping())
        self.assertEqual(await self.directory._pool.query("SELECT 1"), [(1,)])

    async def test_close_in_mid_query_leaves_nothing_in_the_reactor(self) -> None:
        queries = [self.directory._pool.query("SELECT pg_sleep(30)") for _ in range(6)]
        await until(lambda: len(self.sleeping()) == 4)
        await self.directory.close()
        for query in queries:
            await self.outage(query)
        await self.outage(self.directory.user(anybody()))
        left = [
            item
            for item in {*reactor.getReaders(), *reactor.getWriters()}
            if type(item).__module__.startswith(("txpostgres", "matrix.directory"))
        ]
        self.assertEqual(left, [])


class Hole(Protocol):
    """One side of a relay that can stop relaying without closing anything."""

    def __init__(self, relay: BlackHole) -> None:
        self.relay = relay
        self.other: Protocol | None = None
        self.waiting: list[bytes] = []

    def connectionMade(self) -> None:
        self.relay.holes.append(self)

    def dataReceived(self, data: bytes) -> None:
        if self.relay.swallowing:
            return
        if self.other is None or self.other.transport is None:
            self.waiting.append(data)
        else:
            self.other.transport.write(data)

    def connectionLost(self, reason: object) -> None:
        if not self.relay.swallowing and self.other and self.other.transport:
            self.other.transport.loseConnection()


class BlackHole(Factory):
    """A relay to the server: what goes through it disappears while it is C{swallowing}."""

    def __init__(self, dsn: str) -> None:
        self.swallowing = False
        self.holes: list[Hole] = []
        self.server = TCP4ClientEndpoint(reactor, "127.0.0.1", urlsplit(dsn).port)
        self.port = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.dsn = dsn.replace(f":{urlsplit(dsn).port}/", f":{self.port.getHost().port}/")

    def buildProtocol(self, address: object) -> Hole:
        near, far = Hole(self), Hole(self)
        far.other = near

        def connected(_: object) -> None:
            near.other = far
            far.transport.write(b"".join(near.waiting))

        connectProtocol(self.server, far).addCallback(connected)
        return near

    async def close(self) -> None:
        """Close the listener and whatever goes through."""
        await self.port.stopListening()
        for hole in self.holes:
            hole.transport.abortConnection()
        await deferLater(reactor, 0.05)


class SilentServerTests(TestCase):
    """The server, or the way to it, dies without a word: no end, no reset."""

    async def setUp(self) -> None:
        self.patch(_listener, "PROBE_SECONDS", 0.1)
        self.patch(_listener, "ANSWER_SECONDS", 0.2)
        self.patch(_pool, "QUERY_SECONDS", 0.3)
        dsn = postgres.fresh_database()
        self.addCleanup(postgres.drop_database, dsn)
        self.hole = BlackHole(dsn)
        self.addCleanup(lambda: started(self.hole.close()))
        self.directory: PostgresDirectory = await open_directory(reactor, self.hole.dsn)
        self.addCleanup(lambda: started(self.directory.close()))

    async def test_silence_is_noticed_and_healed(self) -> None:
        self.patch(_connection, "CONNECT_SECONDS", 0.2)
        who = anybody()
        heard: list[UserId | None] = []
        self.directory.watch(heard.append)
        await self.directory.admit(who, "")
        self.hole.swallowing = True
        began = reactor.seconds()
        with self.assertRaises(DirectoryUnavailable):
            await self.directory.user(who)
        self.assertLess(reactor.seconds() - began, 2)
        await until(lambda: self.directory.stale_since() is not None)
        stale_since = self.directory.stale_since()
        assert stale_since is not None
        self.assertLess(abs(stale_since - began), 1)
        with self.assertRaises(DirectoryUnavailable):
            await self.directory.user(who)
        self.assertEqual(heard, [])
        self.hole.swallowing = False
        await until(lambda: self.directory.stale_since() is None)
        self.assertEqual(heard, [None])
        user = await self.directory.user(who)
        assert user is not None
        await self.directory.create_machine(who, "local")
        await until(lambda: heard == [None, who])

    async def test_probes_of_a_healthy_server_lose_nothing(self) -> None:
        heard: list[UserId | None] = []
        who = anybody()
        self.directory.watch(heard.append)
        await self.directory.admit(who, "")
        machine = await self.directory.create_machine(who, "local")
        for _ in range(100):
            machine = await self.directory.change(machine, state=MachineState.RUNNING)
            await deferLater(reactor, 0.004)
        await until(lambda: len(heard) == 101)
        self.assertEqual(set(heard), {who})


class RestartTests(TestCase):
    """PostgreSQL is stopped for a while and comes back."""

    timeout = 60

    async def test_a_restart_heals_by_itself(self) -> None:
        root = Path(tempfile.mkdtemp())
        root.chmod(0o711)
        self.addCleanup(shutil.rmtree, root)
        server = Postmaster(Cluster(root / "cluster", find_installation(), durable=False))
        dsn = server.start()
        self.addCleanup(server.stop)
        directory = await open_directory(reactor, dsn)
        self.addCleanup(lambda: started(directory.close()))
        heard: list[UserId | None] = []
        directory.watch(heard.append)
        who = anybody()
        await directory.admit(who, "x@example.org")

        server.stop()
        began = reactor.seconds()
        for _ in range(3):
            with self.assertRaises(DirectoryUnavailable):
                await directory.user(who)
        self.assertLess(reactor.seconds() - began, 1)
        await until(lambda: directory.stale_since() is not None)

        server._cluster.acquire()
        server.restart()
        await until(lambda: directory.stale_since() is None)
        self.assertEqual(heard, [None])
        user = await directory.user(who)
        assert user is not None
        self.assertEqual(user.email, "x@example.org")


class OpeningTests(TestCase):
    """What start-up makes of a database, or of none."""

    async def refusal(self, dsn: str) -> str:
        """The line with which this database is refused."""
        try:
            directory = await open_directory(reactor, dsn)
        except ConfigurationError as error:
            self.assertNotIn("\n", str(error))
            self.assertNotIn("hunter2", str(error))
            return str(error)
        await directory.close()
        raise self.failureException("it opened")

    async def test_refusals(self) -> None:
        dsn = postgres.fresh_database()
        self.addCleanup(postgres.drop_database, dsn)
        parts = urlsplit(dsn)
        wrong = dsn.replace(f":{parts.password}@", ":hunter2@")
        self.assertIn("password authentication failed", await self.refusal(wrong))
        self.assertIn("does not exist", await self.refusal(dsn.replace(parts.path, "/nowhere")))
        closed = "postgresql://u:hunter2@127.0.0.1:1/x"
        self.assertIn("Connection refused", await self.refusal(closed))
        nameless = "postgresql://u:hunter2@no-such-host.invalid/x"
        self.assertIn("no-such-host.invalid", await self.refusal(nameless))
        for mangled in (
            "postgresql://u:hunter2/3@h/x",
            "postgresql://u:p@hunter2@h/x",
            "",
            "hunter2",
        ):
            self.assertIn("is not understood", await self.refusal(mangled))

    async def test_a_role_without_rights(self) -> None:
        dsn = postgres.fresh_database(migrated=False)
        self.addCleanup(postgres.drop_database, dsn)
        self.addCleanup(postgres.execute, "DROP ROLE IF EXISTS guest")
        postgres.execute("CREATE ROLE guest LOGIN PASSWORD 'hunter2'", dsn)
        parts = urlsplit(dsn)
        guest = dsn.replace(f"//{parts.username}:{parts.password}@", "//guest:hunter2@")
        self.assertIn("permission denied", await self.refusal(guest))

    async def test_host_names_are_resolved(self) -> None:
        dsn = postgres.fresh_database().replace("127.0.0.1", "localhost")
        self.addCleanup(postgres.drop_database, dsn)
        directory = await open_directory(reactor, dsn, connections=1)
        self.addCleanup(lambda: started(directory.close()))
        self.assertIsNone(await directory.user(anybody()))

    def test_many_may_migrate_at_once(self) -> None:
        dsn = postgres.fresh_database(migrated=False)
        self.addCleanup(postgres.drop_database, dsn)
        code = "import sys; from matrix.directory import migrate; migrate(sys.argv[1])"
        command = [sys.executable, "-c", code, dsn]
        runs = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
        for run in runs:
            self.assertEqual(run.communicate()[1], b"")
            self.assertEqual(run.returncode, 0)
        names = {str(name) for (name,) in postgres.execute(TABLES, dsn)}
        self.assertLessEqual({"users", "machines", "events"}, names)
        self.assertEqual(
            postgres.execute(
                "SELECT count(*), count(DISTINCT migration_id) FROM _yoyo_migration", dsn
            ),
            [(MIGRATIONS, MIGRATIONS)],
        )

    def test_a_migration_cut_short_is_taken_up_again(self) -> None:
        dsn = postgres.fresh_database()
        self.addCleanup(postgres.drop_database, dsn)
        # Applied, but killed before that was written down: each of them in turn, and all.
        postgres.execute("DELETE FROM _yoyo_migration", dsn)
        migrate(dsn)
        [(count,)] = postgres.execute("SELECT count(*) FROM _yoyo_migration", dsn)
        self.assertEqual(count, MIGRATIONS)

    def test_migrations_can_be_rolled_back_and_applied_again(self) -> None:
        dsn = postgres.fresh_database()
        self.addCleanup(postgres.drop_database, dsn)
        before = self.shape(dsn)
        roll_back(dsn)
        names = {str(name) for (name,) in postgres.execute(TABLES, dsn)}
        self.assertEqual({name for name in names if not name.startswith("_yoyo")}, set())
        functions = "SELECT proname FROM pg_proc WHERE proname LIKE 'notify_%'"
        self.assertEqual(postgres.execute(functions, dsn), [])
        migrate(dsn)
        self.assertEqual(self.shape(dsn), before)

    def shape(self, dsn: str) -> list[tuple[object, ...]]:
        """The columns and indices of a database."""
        return postgres.execute(
            "SELECT table_name, column_name, data_type, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_schema = 'public'"
            " UNION ALL SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes"
            " WHERE schemaname = 'public' ORDER BY 1, 2",
            dsn,
        )


class ConnectionTests(TestCase):
    """The wrapper around txpostgres's connection."""

    def test_close_before_connect(self) -> None:
        connection = Connection(reactor)
        self.assertFalse(connection.alive)
        connection.close()
        connection.close()
