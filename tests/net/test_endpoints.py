"""Binding: what is bound, and in which words it is refused."""

import errno
import os
import socket
import stat
import tempfile
from pathlib import Path
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.model import Address
from matrix.net import _endpoints, bind, event_loop, parse_listen


class ParseTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for text, address in (
            ("localhost:8443", Address(host="localhost", port=8443)),
            (":443", Address(host="::", port=443)),
            ("[::1]:443", Address(host="::1", port=443)),
            ("tcp:0.0.0.0:80", Address(host="0.0.0.0", port=80)),
            ("unix:/run/x.sock", Address(path="/run/x.sock")),
        ):
            self.assertEqual(parse_listen(text), address)

    def test_refused(self) -> None:
        for text in ("", "443", "localhost", "localhost:", "localhost:x", "a:65536", "unix:x"):
            with self.assertRaises(ConfigurationError, msg=text):
                parse_listen(text)


def _accepted(listener: socket.socket) -> list[socket.socket]:
    """What waits in a listener's queue, closed already."""
    accepted = []
    while True:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return accepted
        client.close()
        accepted.append(client)


class LoopTests(SynchronousTestCase):
    def test_other_reactors_are_refused(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            event_loop(Clock())
        self.assertIn("--reactor=asyncio", str(caught.exception))


class TcpTests(SynchronousTestCase):
    def bind(self, address: Address, **options: int) -> list[socket.socket]:
        listeners = bind(address, **options)
        for listener in listeners:
            self.addCleanup(listener.close)
        return listeners

    def refused(self, address: Address, queues: int = 1) -> str:
        with self.assertRaises(ConfigurationError) as caught:
            self.bind(address, queues=queues)
        text = str(caught.exception)
        self.assertTrue(text.startswith(f"cannot listen on {address}: "), text)
        self.assertNotIn("\n", text)
        return text

    def free_port(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            return int(free.getsockname()[1])

    def test_ephemeral_port(self) -> None:
        listener = self.bind(Address(host="127.0.0.1", port=0))[0]
        socket.create_connection(listener.getsockname()).close()
        self.assertFalse(listener.getblocking())

    def test_localhost_is_both_families_on_one_port(self) -> None:
        places = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        ]
        with mock.patch.object(socket, "getaddrinfo", return_value=places * 2):
            listeners = self.bind(Address(host="localhost", port=0))
        names = [listener.getsockname() for listener in listeners]
        self.assertEqual([name[0] for name in names], ["::1", "127.0.0.1"])
        self.assertEqual(len({name[1] for name in names}), 1)

    def test_half_that_the_kernel_lacks_is_left_out(self) -> None:
        places = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        ]
        with mock.patch.object(socket, "getaddrinfo", return_value=places):
            listeners = self.bind(Address(host="name", port=0))
        self.assertEqual(len(listeners), 1)

    def test_but_never_everything(self) -> None:
        place = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0))
        with mock.patch.object(socket, "getaddrinfo", return_value=[place, place]):
            text = self.refused(Address(host="name", port=0))
        self.assertIn("no such address", text)

    def test_all_addresses_of_both_families(self) -> None:
        listener = self.bind(Address(host="::", port=0))[0]
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()

    def test_all_addresses_without_ipv6(self) -> None:
        with mock.patch.object(socket, "has_dualstack_ipv6", return_value=False):
            listener = self.bind(Address(host="::", port=0))[0]
        self.assertEqual(listener.family, socket.AF_INET)

    def test_in_use(self) -> None:
        taken = self.bind(Address(host="127.0.0.1", port=0))[0].getsockname()[1]
        self.assertIn("another program", self.refused(Address(host="127.0.0.1", port=taken)))

    def test_several_queues_have_one_port(self) -> None:
        for port in (0, self.free_port()):
            queues = self.bind(Address(host="127.0.0.1", port=port), queues=3)
            ports = {queue.getsockname()[1] for queue in queues}
            self.assertEqual((len(queues), len(ports)), (3, 1))
            self.assertIn(port, {0, *ports})

    def test_connections_are_spread_over_them(self) -> None:
        queues = self.bind(Address(host="127.0.0.1", port=0), queues=2)
        place = queues[0].getsockname()
        for _ in range(100):
            client = socket.create_connection(place)
            self.addCleanup(client.close)
        for queue in queues:
            self.assertGreater(len(_accepted(queue)), 20)

    def test_a_program_that_has_queues_there_is_noticed(self) -> None:
        taken = self.bind(Address(host="127.0.0.1", port=0), queues=2)[0].getsockname()[1]
        for queues in (1, 2):
            address = Address(host="127.0.0.1", port=taken)
            self.assertIn("another program", self.refused(address, queues))

    def test_none_is_left_bound_when_one_fails(self) -> None:
        taken = self.bind(Address(host="127.0.0.1", port=0))[0].getsockname()[1]
        places = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", taken, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", taken)),
        ]
        with mock.patch.object(socket, "getaddrinfo", return_value=places):
            self.refused(Address(host="localhost", port=taken))
        self.assertEqual(len(self.bind(Address(host="::1", port=taken))), 1)

    def test_foreign_address(self) -> None:
        self.assertIn("no such address", self.refused(Address(host="192.0.2.1", port=0)))

    def test_unknown_name(self) -> None:
        self.refused(Address(host="no-such-host.invalid", port=0))

    def test_not_permitted(self) -> None:
        denied = OSError(errno.EACCES, "Permission denied")
        with mock.patch.object(_endpoints, "_listen_on", side_effect=denied):
            text = self.refused(Address(host="127.0.0.1", port=443))
        self.assertIn("CAP_NET_BIND_SERVICE", text)


class UnixTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="sock-")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "s"
        self.address = Address(path=str(self.path))

    def bind(self) -> socket.socket:
        listener = bind(self.address)[0]
        self.addCleanup(listener.close)
        return listener

    def refused(self) -> str:
        with self.assertRaises(ConfigurationError) as caught:
            bind(self.address)
        return str(caught.exception)

    def test_only_the_owner_may_connect(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.bind()
        mode = self.path.stat().st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o600)
        self.assertEqual(os.umask(0), 0, "the process's own umask is as it was")

    def test_stale_one_is_replaced(self) -> None:
        bind(self.address)[0].close()
        self.assertTrue(self.path.exists())
        self.bind()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))

    def test_one_in_use_is_not(self) -> None:
        self.bind()
        self.assertIn("another program", self.refused())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))

    def test_one_whose_queue_is_full_is_in_use(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.path))
        listener.listen(0)
        for _ in range(2):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex(str(self.path))
        self.assertIn("another program", self.refused())

    def test_a_file_is_never_removed(self) -> None:
        self.path.write_text("precious")
        self.assertIn("no socket", self.refused())
        self.assertEqual(self.path.read_text(), "precious")

    def test_directory_that_is_not_there(self) -> None:
        self.address = Address(path=str(self.path / "deeper"))
        self.assertIn("No such file or directory", self.refused())

    def test_path_too_long(self) -> None:
        self.address = Address(path="/" + "x" * 200)
        self.assertIn("too long", self.refused())
