"""Embedded SeaweedFS for real: its data stay, predecessors are taken over, deaths are healed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from http.client import HTTPConnection
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from matrix.errors import ConfigurationError
from matrix.processes import Process, _supervised, is_alive, read_pid_file
from matrix.snapshots import EmbeddedSeaweed, Keeping, S3Place, S3Store, StoreUnavailable, _seaweed

KEEPING = Keeping("users/", 7)

TAKEN_OVER = """
import os, signal, sys
from http.client import HTTPConnection
from pathlib import Path
from matrix.snapshots._seaweed import Seaweed, find_program
Seaweed(Path(sys.argv[1]), find_program()).start()
os.kill(os.getpid(), signal.SIGKILL)
"""


class EmbeddedTests(TestCase):
    """Each in a directory of its own."""

    timeout = 90

    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="matrix-embedded-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        # Deeper than a unix socket's path may be.
        self.directory = folder / ("deep" * 30) / "s3"
        self.seaweed = EmbeddedSeaweed(self.directory, reactor)
        self.addCleanup(lambda: ensureDeferred(self.seaweed.stop()))

    @property
    def process(self) -> Process:
        found = read_pid_file(self.directory / "seaweedfs.pid")
        assert found is not None
        return found

    def store(self, place: S3Place) -> S3Store:
        store = S3Store(place, reactor)
        store.start()
        self.addCleanup(store.stop)
        return store

    async def put(self, store: S3Store, key: str) -> None:
        writing = await store.write(key, 5)
        await writing.write([b"12345"])
        await writing.commit()

    async def sizes(self, store: S3Store) -> list[int]:
        """The sizes of all objects, as soon as the store answers."""
        for _ in range(300):
            try:
                return [one.size async for page in store.list("users/") for one in page]
            except StoreUnavailable:
                await deferLater(reactor, 0.1)
        raise self.failureException("the store does not come back")

    async def test_a_death_loses_nothing(self) -> None:
        self.patch(_supervised, "REVIVE_SECONDS", 0.05)
        place = await self.seaweed.start()
        store = self.store(place)
        self.assertEqual(await store.prepare(KEEPING), [])
        await self.put(store, "users/a/one")
        first = self.process
        os.kill(first.pid, signal.SIGKILL)
        self.assertEqual(await self.sizes(store), [5])
        self.assertEqual(self.seaweed.deaths, 1)
        self.assertNotEqual(self.process, first)
        self.assert_the_key_is_kept(place)
        await deferToThread(self.assert_nobody_gets_in_behind)

    def assert_nobody_gets_in_behind(self) -> None:
        """Its other ports are open to all on this host, and answer none of them."""
        ports = json.loads((self.directory / "ports.json").read_text())
        asked = [
            ("master", "GET", "/col/delete?collection=matrix-snapshots"),
            ("master", "GET", "/dir/assign"),
            ("filer", "GET", "/buckets/?pretty=y"),
            ("filer", "DELETE", "/buckets?recursive=true"),
            ("volume", "GET", "/admin/volume/delete?volume=1"),
            ("s3", "GET", "/"),
        ]
        for part, method, path in asked:
            connection = HTTPConnection("127.0.0.1", ports[part], timeout=10)
            self.addCleanup(connection.close)
            connection.request(method, path)
            self.assertIn(connection.getresponse().status, (401, 403, 404, 405), (part, path))
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        for part in ("master", "volume", "filer", "s3"):
            plain = socket.create_connection(("127.0.0.1", ports[f"{part}.grpc"]), 10)
            with plain, self.assertRaises(ssl.SSLError, msg=part):
                anybody.wrap_socket(plain).recv(1)

    def assert_the_key_is_kept(self, place: S3Place) -> None:
        """From whoever looks at what we leave lying about."""
        for name in ("keys.json", "s3.json", "security.toml", "grpc.key", "seaweedfs.log"):
            self.assertEqual((self.directory / name).stat().st_mode & 0o077, 0, name)
        self.assertNotIn(place.secret_key, (self.directory / "seaweedfs.log").read_text())
        command = Path(f"/proc/{self.process.pid}/cmdline").read_bytes()
        self.assertNotIn(place.secret_key.encode(), command)

    async def test_a_killed_predecessors_server_is_taken_over(self) -> None:
        arguments = [sys.executable, "-c", TAKEN_OVER, str(self.directory)]
        done = subprocess.run(arguments, capture_output=True)
        self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
        left = self.process
        self.assertTrue(is_alive(left))
        store = self.store(await self.seaweed.start())
        self.assertEqual(self.process, left)
        self.assertEqual(await store.prepare(KEEPING), [])
        with self.assertRaises(ConfigurationError) as caught:
            await EmbeddedSeaweed(self.directory, reactor).start()
        self.assertIn("is in use by another Matrix", str(caught.exception))
        ports = json.loads((self.directory / "ports.json").read_text())
        await self.seaweed.stop()
        self.assertFalse(is_alive(left))
        left_behind = [path for port in ports.values() for path in Path("/tmp").glob(f"*{port}*")]
        self.assertEqual(left_behind, [])

    async def test_it_says_why_it_does_not_start(self) -> None:
        free = _seaweed.free_ports
        self.patch(_seaweed, "free_ports", lambda names: free(names) | {"filer": 99_999})
        with self.assertRaises(ConfigurationError) as caught:
            await self.seaweed.start()
        self.assertIn("embedded SeaweedFS does not start: ", str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
