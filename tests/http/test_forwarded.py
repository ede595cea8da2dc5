"""Who sent a request: never whom the sender names, but whom a trusted proxy names."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.http import TrustedProxies
from matrix.testing.served import Served

PROXIES = TrustedProxies(map(ip_network, ("10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1")))
PROXY = "10.0.0.1"
ENTRIES = [
    "unknown", "_hidden", "1.2.3", "[::1", "::1]", "[::1]x", "1.2.3.4:", "1.2.3.4:123456",
    "fe80::1%eth0", "fe80::1%<b>", "1.2.3.4 5", "", "\xff", "[]", "[1.2.3.4]:80:90",
]  # fmt: skip


class TrustTests(SynchronousTestCase):
    def test_whom(self) -> None:
        for peer in ("10.9.8.7", "2001:db8:1::5", "127.0.0.1"):
            self.assertIn(peer, PROXIES)
        for peer in ("11.0.0.1", "2001:db8:2::5", "127.0.0.2", "local", "", "fe80::1%eth0"):
            self.assertNotIn(peer, PROXIES)

    def test_a_zone_is_no_part_of_a_peer(self) -> None:
        self.assertIn("fe80::1%eth0", TrustedProxies([ip_network("fe80::/64")]))

    def test_nobody_by_default(self) -> None:
        self.assertNotIn("127.0.0.1", TrustedProxies())


class ClientTests(SynchronousTestCase):
    def client(self, hops: str) -> str:
        return PROXIES.client(PROXY, hops.encode("latin-1"))

    def test_right_most_that_is_not_trusted(self) -> None:
        for hops, client in (
            ("192.0.2.1", "192.0.2.1"),
            ("198.51.100.9, 192.0.2.1", "192.0.2.1"),
            ("198.51.100.9,192.0.2.1,10.0.0.2 ,\t10.0.0.3", "192.0.2.1"),
            ("10.0.0.9, 192.0.2.1", "192.0.2.1"),
            ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
            ("2001:db8::7, 2001:db8:1::2", "2001:db8::7"),
        ):
            self.assertEqual(self.client(hops), client, hops)

    def test_forms(self) -> None:
        for hop, client in (
            ("192.0.2.1:4711", "192.0.2.1"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:DB8:0::7]:443", "2001:db8::7"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:10.0.0.5", "10.0.0.5"),
        ):
            self.assertEqual(self.client(hop), client, hop)

    def test_what_is_no_address_hides_everything_left_of_it(self) -> None:
        for entry in ENTRIES:
            self.assertEqual(self.client(entry), PROXY, entry)
            self.assertEqual(self.client(f"192.0.2.66, {entry}, 10.0.0.2"), "10.0.0.2", entry)
            self.assertEqual(self.client(f"{entry}, 192.0.2.1"), "192.0.2.1", entry)

    @given(st.text(st.characters(max_codepoint=255), max_size=60))
    def test_it_is_an_address_whatever_was_written(self, hops: str) -> None:
        ip_address(self.client(hops))

    @given(st.lists(st.sampled_from(["192.0.2.66", "10.0.0.9", "::1", *ENTRIES]), max_size=4))
    def test_what_is_put_in_front_changes_nothing(self, spoofed: list[str]) -> None:
        self.assertEqual(self.client(", ".join([*spoofed, "192.0.2.1", "10.0.0.2"])), "192.0.2.1")


class ExchangeTests(SynchronousTestCase):
    def told(self, *lines: bytes, peer: str = PROXY) -> tuple[str, bytes]:
        served = Served(proxies=PROXIES)
        request = b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n" % b"".join(
            line + b"\r\n" for line in lines
        )
        served.connect(request, peer=(peer, 4711), tls="TLSv1.3")
        (exchange,) = served.exchanges
        return exchange.peer, exchange.forwarded

    def test_a_trusted_proxy_is_believed(self) -> None:
        client, lines = self.told(b"X-Forwarded-For: 6.6.6.6, 192.0.2.1")
        self.assertEqual(client, "192.0.2.1")
        self.assertEqual(
            lines,
            b"X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n",
        )

    def test_several_lines_are_one(self) -> None:
        client, lines = self.told(b"X-Forwarded-For: 192.0.2.1", b"x-forwarded-for: 10.0.0.2")
        self.assertEqual(client, "192.0.2.1")
        self.assertIn(b"For: 192.0.2.1, 10.0.0.2, 10.0.0.1\r\n", lines)

    def test_it_need_not_say_anything(self) -> None:
        for lines in ((), (b"X-Forwarded-For:",), (b"X_Forwarded_For: 192.0.2.1",),
                      (b"Forwarded: for=192.0.2.1",), (b"X-Real-IP: 192.0.2.1",)):  # fmt: skip
            client, told = self.told(*lines)
            self.assertEqual(client, PROXY)
            self.assertIn(b"X-Forwarded-For: 10.0.0.1\r\n", told)

    def test_scheme_and_host_are_ours_to_say(self) -> None:
        _, lines = self.told(b"X-Forwarded-Proto: gopher", b"X-Forwarded-Host: evil.example")
        self.assertIn(b"X-Forwarded-Proto: https\r\n", lines)
        self.assertNotIn(b"evil", lines)

    def test_a_connection_field_does_not_take_it_away(self) -> None:
        client, _ = self.told(b"X-Forwarded-For: 192.0.2.1", b"Connection: X-Forwarded-For")
        self.assertEqual(client, "192.0.2.1")

    def test_anybody_else_is_not(self) -> None:
        client, lines = self.told(b"X-Forwarded-For: 192.0.2.1", peer="192.0.2.66")
        self.assertEqual(client, "192.0.2.66")
        self.assertIn(b"X-Forwarded-For: 192.0.2.66\r\n", lines)
        self.assertNotIn(b"192.0.2.1", lines)
