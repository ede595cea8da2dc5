"""Connection strings: what is understood, what is kept back, which addresses are tried."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory._dsn import DEFAULTS, candidates, first_line, is_address, parse
from matrix.errors import ConfigurationError

SECRET = "hunter2"


def no_lookup(host: str) -> list[str]:
    """For hosts that need none."""
    raise AssertionError(f"{host} was looked up")


class ParseTests(SynchronousTestCase):
    """L{parse}."""

    def test_both_forms(self) -> None:
        expected = {**DEFAULTS, "user": "u", "password": "p", "host": "h", "dbname": "d"}
        self.assertEqual(parse("postgresql://u:p@h/d"), expected)
        self.assertEqual(parse("host=h user=u password=p dbname=d"), expected)

    def test_what_is_given_wins_over_our_defaults(self) -> None:
        given = parse("postgresql://h/d?application_name=mine&tcp_user_timeout=5")
        self.assertEqual(given["application_name"], "mine")
        self.assertEqual(given["tcp_user_timeout"], "5")
        self.assertEqual(given["keepalives_idle"], DEFAULTS["keepalives_idle"])

    def test_a_badly_encoded_password_is_not_repeated(self) -> None:
        for dsn in (
            f"postgresql://u:{SECRET}/x@h/d",
            f"postgresql://u:x@{SECRET}@h/d",
            f"postgresql://u:%zz{SECRET}@h/d",
            f"host=h {SECRET}",
            f"postgresql://h:{SECRET},5432/d",
            SECRET,
            "",
        ):
            error = self.assertRaises(ConfigurationError, parse, dsn)
            self.assertNotIn(SECRET, str(error))
            self.assertIn("postgresql://USER:PASSWORD@HOST/NAME", str(error))

    @given(st.text(max_size=60).filter(lambda text: "\0" not in text))
    def test_anything_is_understood_or_refused(self, text: str) -> None:
        try:
            parse(text)
        except ConfigurationError as error:
            self.assertNotIn("\n", str(error))


class CandidatesTests(SynchronousTestCase):
    """L{candidates}."""

    def test_nothing_to_resolve(self) -> None:
        for dsn in (
            "postgresql:///d",
            "postgresql://10.0.0.1/d",
            "postgresql://[fd00::1]:5432/d",
            "postgresql:///d?host=/run/postgresql",
            "postgresql://name/d?hostaddr=10.0.0.1",
        ):
            parameters = parse(dsn)
            self.assertEqual(candidates(parameters, no_lookup), [parameters])

    def test_each_address_of_a_name(self) -> None:
        parameters = parse("postgresql://db:6432/d?sslmode=verify-full")
        found = candidates(parameters, lambda host: ["10.0.0.1", "fd00::1"])
        self.assertEqual([place["hostaddr"] for place in found], ["10.0.0.1", "fd00::1"])
        for place in found:
            # The name stays: the server's certificate is checked against it.
            self.assertEqual((place["host"], place["port"]), ("db", "6432"))
            self.assertEqual(place["sslmode"], "verify-full")

    def test_several_hosts_each_with_its_port(self) -> None:
        parameters = parse("postgresql://a:1,10.0.0.2:2,b/d")
        found = candidates(parameters, lambda host: [f"{host}1", f"{host}2"])
        self.assertEqual(
            [(place["host"], place.get("hostaddr"), place.get("port")) for place in found],
            [
                ("a", "a1", "1"),
                ("a", "a2", "1"),
                ("10.0.0.2", None, "2"),
                ("b", "b1", "5432"),
                ("b", "b2", "5432"),
            ],
        )

    def test_one_port_is_for_all_hosts(self) -> None:
        parameters = parse("host=10.0.0.1,10.0.0.2 port=7 dbname=d")
        self.assertEqual(
            [(place["host"], place["port"]) for place in candidates(parameters, no_lookup)],
            [("10.0.0.1", "7"), ("10.0.0.2", "7")],
        )

    @given(st.ip_addresses())
    def test_addresses_are_no_names(self, address: object) -> None:
        self.assertTrue(is_address(str(address)))
        self.assertFalse(is_address(f"db-{address}"))


class FirstLineTests(SynchronousTestCase):
    """L{first_line}."""

    @given(st.text())
    def test_one_line_whatever_it_was(self, text: str) -> None:
        line = first_line(ValueError(text))
        self.assertEqual(len(line.splitlines()), 1)
        self.assertTrue(line.strip())

    def test_the_first_says_what(self) -> None:
        error = OSError('connection to server at "h"  failed:\tConnection refused\n\tIs it up?\n')
        self.assertEqual(
            first_line(error), 'connection to server at "h" failed: Connection refused'
        )
