"""Embedded mode's authority: what it makes verifies, is kept, renewed, and harmless."""

import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from matrix.net import authority
from matrix.net._tls import server_context
from matrix.net.authority import LEAF_LIFE, LocalAuthority


def verify(ca: Path, cert: Path, key: Path, name: str) -> None:
    """
    Shake hands as a strict client that trusts C{ca} and nobody else.

    @raise ssl.SSLCertVerificationError: the client does not accept the certificate.
    """
    client = ssl.create_default_context(cafile=str(ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = server_context(cert, key).wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        for end in (near, far):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert near.version() == "TLSv1.3"


class AuthorityCase(SynchronousTestCase):
    """A test with an authority whose clock it sets."""

    def setUp(self) -> None:
        self.now = datetime.now(UTC)
        self.directory = Path(self.mktemp()) / "tls"
        self.authority = LocalAuthority(self.directory, now=lambda: self.now)

    def contents(self) -> list[bytes]:
        return [path.read_bytes() for path in self.authority.ensure()]


class ChainTests(AuthorityCase):
    def test_verifies_for_every_name(self) -> None:
        paths = self.authority.ensure()
        for name in ("localhost", "127.0.0.1", "::1"):
            verify(*paths, name)

    def test_names(self) -> None:
        _, cert, _ = self.authority.ensure()
        leaf = x509.load_pem_x509_certificate(cert.read_bytes())
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["localhost", "*.localhost"])
        self.assertEqual(
            [str(address) for address in names.get_values_for_type(x509.IPAddress)],
            ["127.0.0.1", "::1"],
        )

    def test_other_names_are_refused(self) -> None:
        paths = self.authority.ensure()
        for name in ("example.com", "127.0.0.2"):
            self.assertRaises(ssl.SSLCertVerificationError, verify, *paths, name)

    def test_unknown_to_everybody_else(self) -> None:
        _, *pair = self.authority.ensure()
        other, *_ = LocalAuthority(Path(self.mktemp())).ensure()
        self.assertRaises(ssl.SSLCertVerificationError, verify, other, *pair, "localhost")

    def test_trusting_it_is_harmless(self) -> None:
        """Even with the authority's key in hand, nobody gets a certificate for another name."""
        for dns_names, addresses, name in (
            (("bank.example",), (), "bank.example"),
            (("localhost.example",), (), "localhost.example"),
            (("localhost",), ("192.0.2.1",), "192.0.2.1"),
        ):
            directory = Path(self.mktemp())
            with (
                mock.patch.object(authority, "DNS_NAMES", dns_names),
                mock.patch.object(authority, "ADDRESSES", addresses),
            ):
                paths = LocalAuthority(directory).ensure()
            error = self.assertRaises(ssl.SSLCertVerificationError, verify, *paths, name)
            self.assertIn("permitted subtree violation", str(error))

    def test_lifetimes(self) -> None:
        ca, cert, _ = self.authority.ensure()
        lives = {}
        for path in (ca, cert):
            one = x509.load_pem_x509_certificate(path.read_bytes())
            lives[path] = (one.not_valid_after_utc - one.not_valid_before_utc).days
            self.assertLess(one.not_valid_before_utc, self.now)
        self.assertEqual(lives, {ca: 3653, cert: 397})


class KeepingTests(AuthorityCase):
    def test_kept(self) -> None:
        first = self.contents()
        self.assertEqual(first, self.contents())

    def test_modes(self) -> None:
        self.authority.ensure()
        modes = {path.name: path.stat().st_mode & 0o777 for path in self.directory.iterdir()}
        self.assertEqual((modes["ca.key"], modes["localhost.key"]), (0o600, 0o600))
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        self.assertEqual(set(modes), {"ca.key", "ca.pem", "localhost.key", "localhost.pem", "lock"})

    def test_renewed_in_its_last_week(self) -> None:
        ca, cert, _ = self.contents()
        self.now += LEAF_LIFE - timedelta(days=9)
        self.assertEqual(self.contents()[:2], [ca, cert])
        self.now += timedelta(days=2)
        renewed = self.contents()
        self.assertEqual(renewed[0], ca)
        self.assertNotEqual(renewed[1], cert)

    def test_authority_renewed_before_a_leaf_could_outlive_it(self) -> None:
        ca, *_ = self.contents()
        self.now += timedelta(days=3653 - 390)
        renewed, *_ = self.contents()
        self.assertNotEqual(renewed, ca)

    def test_made_under_a_clock_that_was_ahead(self) -> None:
        self.now += timedelta(days=30)
        self.authority.ensure()
        self.now -= timedelta(days=30)
        verify(*self.authority.ensure(), "localhost")

    def test_damage_is_repaired(self) -> None:
        for name in ("ca.pem", "ca.key", "localhost.pem", "localhost.key"):
            self.authority.ensure()
            for damage in (b"", b"rubbish", None):
                path = self.directory / name
                if damage is None:
                    path.unlink()
                else:
                    path.write_bytes(damage)
                verify(*self.authority.ensure(), "localhost")

    def test_damaged_certificate_leaves_the_authority_alone(self) -> None:
        ca, cert, _ = self.authority.ensure()
        before = ca.read_bytes()
        cert.write_bytes(b"rubbish")
        self.authority.ensure()
        self.assertEqual(ca.read_bytes(), before)

    def test_halves_of_two_pairs(self) -> None:
        """As a crash between the two writes leaves them."""
        _, cert, key = self.authority.ensure()
        old = cert.read_bytes()
        key.unlink()
        self.authority.ensure()
        cert.write_bytes(old)
        verify(*self.authority.ensure(), "localhost")

    def test_leaf_of_another_authority(self) -> None:
        self.authority.ensure()
        other = LocalAuthority(Path(self.mktemp()))
        for mine, theirs in zip(self.authority.ensure()[1:], other.ensure()[1:], strict=True):
            mine.write_bytes(theirs.read_bytes())
        verify(*self.authority.ensure(), "localhost")

    def test_leftover_of_a_crash(self) -> None:
        self.directory.mkdir(parents=True)
        leftover = self.directory / "localhost.key.new"
        leftover.write_bytes(b"half a k")
        leftover.chmod(0o644)
        _, _, key = self.authority.ensure()
        self.assertFalse(leftover.exists())
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)

    def test_many_starts_at_once(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            starts = [pool.submit(LocalAuthority(self.directory).ensure) for _ in range(16)]
        self.assertEqual(len({start.result() for start in starts}), 1)
        verify(*self.authority.ensure(), "localhost")

    def test_directory_that_cannot_be_made(self) -> None:
        self.directory.parent.mkdir(parents=True)
        self.directory.write_text("a file is in the way")
        self.assertRaises(OSError, self.authority.ensure)

    def test_curve(self) -> None:
        for path in self.authority.ensure()[:2]:
            one = x509.load_pem_x509_certificate(path.read_bytes())
            key = one.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey)
            self.assertEqual(key.curve.name, "secp256r1")
            assert isinstance(one.signature_hash_algorithm, hashes.SHA256)
