"""The shared values: text forms that round-trip, and identities with one spelling."""

import ipaddress
from dataclasses import FrozenInstanceError
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.model import Address, MachineState, Principal, User, UserState, peer_name, user_id

ALICE = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


class UserIdTests(SynchronousTestCase):
    def test_one_spelling(self) -> None:
        for text in (ALICE, ALICE.upper(), ALICE.replace("-", ""), f"{{{ALICE}}}"):
            self.assertEqual(user_id(text), ALICE)

    @given(st.uuids())
    def test_every_uuid(self, value: UUID) -> None:
        self.assertEqual(user_id(str(value)), str(value))
        self.assertEqual(user_id(user_id(value.hex)), str(value))

    def test_anything_else_is_refused(self) -> None:
        for text in ("", "alice", ALICE + "0", ALICE[:-1] + "g", "../" + ALICE):
            self.assertRaises(ValueError, user_id, text)


class PeerNameTests(SynchronousTestCase):
    def test_one_spelling(self) -> None:
        self.assertEqual(peer_name(("192.0.2.1", 1)), "192.0.2.1")
        self.assertEqual(peer_name(("::ffff:192.0.2.1", 1, 0, 0)), "192.0.2.1")
        self.assertEqual(peer_name(("2001:db8::1", 1, 0, 0)), "2001:db8::1")
        self.assertEqual(peer_name(""), "local")


class AddressTests(SynchronousTestCase):
    def test_forms(self) -> None:
        table = [
            ("unix:/run/m.sock", Address(path="/run/m.sock")),
            ("unix:/a b:c", Address(path="/a b:c")),
            ("tcp:127.0.0.1:8080", Address(host="127.0.0.1", port=8080)),
            ("tcp:m.internal:80", Address(host="m.internal", port=80)),
            ("tcp:[fdaa::3]:8080", Address(host="fdaa::3", port=8080)),
        ]
        for text, address in table:
            self.assertEqual(Address.parse(text), address)
            self.assertEqual(str(address), text)

    def test_refused(self) -> None:
        for text in (
            "", "/run/m.sock", "unix:", "unix:relative", "tcp:", "tcp:host", "tcp::80",
            "tcp:host:", "tcp:host:http", "tcp:host:-1", "tcp:host:65536", "tcp:host:٨",
            "udp:host:80", "TCP:host:80",
        ):  # fmt: skip
            error = self.assertRaises(ConfigurationError, Address.parse, text)
            self.assertIn(repr(text), str(error))
            self.assertIn("unix:/path/to/socket or tcp:HOST:PORT", str(error))

    @given(st.ip_addresses(), st.integers(0, 65535))
    def test_hosts_and_ports_round_trip(
        self, host: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
    ) -> None:
        address = Address(host=str(host), port=port)
        self.assertEqual(Address.parse(str(address)), address)

    @given(st.text(st.characters(exclude_categories=["Cs"])).map(lambda name: f"/{name}"))
    def test_paths_round_trip(self, path: str) -> None:
        self.assertEqual(Address.parse(f"unix:{path}"), Address(path=path))
        self.assertEqual(str(Address.parse(f"unix:{path}")), f"unix:{path}")

    @given(st.text())
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            address = Address.parse(text)
        except ConfigurationError:
            return
        self.assertEqual(Address.parse(str(address)), address)


class ValueTests(SynchronousTestCase):
    def test_users_are_active_unless_said_otherwise(self) -> None:
        user = User(user_id(ALICE), "alice@example.com")
        self.assertEqual((user.state, user.idle_timeout), (UserState.ACTIVE, None))

    def test_states_are_their_text(self) -> None:
        """Rows, logs and JSON carry them as they are."""
        self.assertEqual(f"{MachineState.SUSPENDED}", "suspended")
        self.assertIs(MachineState("suspended"), MachineState.SUSPENDED)

    def test_values_cannot_change(self) -> None:
        principal = Principal(user_id(ALICE), "session", 0.0)
        with self.assertRaises(FrozenInstanceError):
            principal.expires_at = 1e10  # type: ignore[misc]
