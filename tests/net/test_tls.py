"""The TLS context: what it agrees to, and how it refuses unusable files."""

import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.net import _openssl
from matrix.net._tls import server_context

NOW = datetime.now(UTC)


class FakeContext(ssl.SSLContext):
    """What the context looks like on a Python that can set several groups."""

    groups = ""

    def set_groups(self, groups: str) -> None:
        self.groups = groups


def write_pair(
    directory: Path,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    *,
    begins: datetime = NOW - timedelta(days=1),
    ends: datetime = NOW + timedelta(days=1),
    passphrase: bytes | None = None,
) -> tuple[Path, Path]:
    """A self-signed certificate and its key, as two files."""
    directory.mkdir(parents=True, exist_ok=True)
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .issuer_name(name)
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    encryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    cert_path, key_path = directory / "cert.pem", directory / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return cert_path, key_path


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLObject:
    """
    Shake hands in memory.

    @return: the client's side.
    @raise ssl.SSLError: the two do not agree.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, session=session),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not waiting, "the handshake does not end"
    return ends[0]


def first_flight(server: ssl.SSLContext, client: ssl.SSLContext) -> int:
    """How many bytes the server answers the client's first with."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    for end in (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return to_client.pending


def any_client() -> ssl.SSLContext:
    """A client that agrees to whatever the server says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class AgreementTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = server_context(*write_pair(Path(self.mktemp())))
        self.client = any_client()

    def test_newest_version(self) -> None:
        self.assertEqual(handshake(self.server, self.client).version(), "TLSv1.3")

    def test_tls_1_2(self) -> None:
        self.client.maximum_version = ssl.TLSVersion.TLSv1_2
        end = handshake(self.server, self.client)
        self.assertEqual(end.version(), "TLSv1.2")
        self.assertIsNone(end.compression())

    def test_older_versions_are_refused(self) -> None:
        self.client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        self.client.maximum_version = ssl.TLSVersion.TLSv1_1
        self.client.set_ciphers("ALL:@SECLEVEL=0")
        self.flushWarnings()  # Python deprecates the old versions, even to test against them
        self.assertRaises(ssl.SSLError, handshake, self.server, self.client)

    def test_weak_ciphers_are_refused(self) -> None:
        self.client.maximum_version = ssl.TLSVersion.TLSv1_2
        for cipher in ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"):
            self.client.set_ciphers(cipher)
            self.assertRaises(ssl.SSLError, handshake, self.server, self.client)

    def test_every_cipher_is_forward_secret_and_authenticated(self) -> None:
        for cipher in self.server.get_ciphers():
            self.assertTrue(cipher["aead"], cipher["name"])
            self.assertIn(cipher["kea"], ("kx-ecdhe", "kx-any"), cipher["name"])

    def test_client_chooses_the_cipher(self) -> None:
        self.client.maximum_version = ssl.TLSVersion.TLSv1_2
        for cipher in ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES256-GCM-SHA384"):
            self.client.set_ciphers(f"{cipher}:ECDHE-ECDSA-AES128-GCM-SHA256")
            chosen = handshake(self.server, self.client).cipher()
            assert chosen is not None
            self.assertEqual(chosen[0], cipher)

    def test_only_groups_of_the_profile(self) -> None:
        self.client.set_ecdh_curve("secp521r1")
        self.assertRaises(ssl.SSLError, handshake, self.server, self.client)
        for group in ("prime256v1", "secp384r1"):
            self.client.set_ecdh_curve(group)
            self.assertEqual(handshake(self.server, self.client).version(), "TLSv1.3")

    def test_one_round_trip_for_whoever_guesses_a_usual_group(self) -> None:
        """A HelloRetryRequest (RFC 8446 section 4.1.4) would be a short first flight."""
        self.assertGreater(first_flight(self.server, any_client()), 500, "X25519")
        self.client.set_ecdh_curve("prime256v1")
        self.assertGreater(first_flight(self.server, self.client), 500, "P-256")

    def test_several_groups_where_python_can(self) -> None:
        context = FakeContext(ssl.PROTOCOL_TLS_SERVER)
        _openssl.set_groups(context)
        self.assertEqual(context.groups, _openssl.GROUPS)

    def test_one_group_where_neither_python_nor_openssl_can(self) -> None:
        self.patch(_openssl, "_ask_openssl", lambda *call: 0)
        _openssl.set_groups(self.server)
        self.client.set_ecdh_curve("secp384r1")
        self.assertRaises(ssl.SSLError, handshake, self.server, self.client)
        self.client.set_ecdh_curve("prime256v1")
        self.assertEqual(handshake(self.server, self.client).version(), "TLSv1.3")

    def test_a_session_goes_on_where_the_ticket_keys_are_shared(self) -> None:
        cert, key = write_pair(Path(self.mktemp()))
        other = server_context(cert, key)
        client = any_client()
        client.maximum_version = ssl.TLSVersion.TLSv1_2  # its ticket comes with the handshake
        session = handshake(self.server, client).session
        self.assertFalse(handshake(other, client, session).session_reused)
        keys = _openssl.ticket_keys(self.server)
        self.assertEqual(len(keys), 80)
        _openssl.share_ticket_keys(other, keys)
        self.assertTrue(handshake(other, client, session).session_reused)

    def test_application_protocol(self) -> None:
        for offered, chosen in ((["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)):
            client = any_client()
            if offered:
                client.set_alpn_protocols(offered)
            end = handshake(self.server, client)
            self.assertEqual(end.selected_alpn_protocol(), chosen)

    def test_sessions_resume(self) -> None:
        self.client.maximum_version = ssl.TLSVersion.TLSv1_2
        first = handshake(self.server, self.client).session
        assert first is not None
        self.assertTrue(first.has_ticket)

    def test_no_renegotiation(self) -> None:
        self.assertTrue(self.server.options & ssl.OP_NO_RENEGOTIATION)
        self.assertTrue(self.server.options & ssl.OP_NO_COMPRESSION)


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.cert, self.key = write_pair(self.directory)

    def refusal(self, cert: Path | None = None, key: Path | None = None) -> str:
        error = self.assertRaises(
            ConfigurationError, server_context, cert or self.cert, key or self.key
        )
        self.assertNotIn("\n", str(error))
        return str(error)

    def test_missing(self) -> None:
        gone = self.directory / "gone.pem"
        self.assertEqual(
            self.refusal(cert=gone), f"MATRIX_TLS_CERT {gone}: No such file or directory"
        )
        self.assertEqual(
            self.refusal(key=gone), f"MATRIX_TLS_KEY {gone}: No such file or directory"
        )

    def test_directory(self) -> None:
        self.assertIn("Is a directory", self.refusal(cert=self.directory))

    def test_unreadable(self) -> None:
        denied = PermissionError(13, "Permission denied")
        with mock.patch.object(Path, "read_bytes", side_effect=denied):
            self.assertEqual(self.refusal(), f"MATRIX_TLS_CERT {self.cert}: Permission denied")

    def test_no_pem(self) -> None:
        for rubbish in (b"", b"hello", b"\x30\x82\x01\x0a", b"-----BEGIN CERTIFICATE-----\nAAAA\n"):
            path = self.directory / "rubbish"
            path.write_bytes(rubbish)
            self.assertEqual(
                self.refusal(cert=path), f"MATRIX_TLS_CERT {path}: no certificate in PEM form"
            )
            self.assertEqual(
                self.refusal(key=path), f"MATRIX_TLS_KEY {path}: no private key in PEM form"
            )

    def test_files_the_wrong_way_round(self) -> None:
        line = self.refusal(cert=self.key, key=self.cert)
        self.assertEqual(line, f"MATRIX_TLS_CERT {self.key}: no certificate in PEM form")

    def test_key_of_another_certificate(self) -> None:
        _, other = write_pair(self.directory / "other")
        self.assertEqual(
            self.refusal(key=other),
            f"MATRIX_TLS_KEY {other}: this key does not belong to the first certificate "
            f"in {self.cert}",
        )

    def test_chain_in_the_wrong_order(self) -> None:
        other, _ = write_pair(self.directory / "other")
        chain = self.directory / "chain.pem"
        chain.write_bytes(other.read_bytes() + self.cert.read_bytes())
        self.assertIn("does not belong to the first certificate", self.refusal(cert=chain))

    def test_encrypted_key(self) -> None:
        cert, key = write_pair(self.directory / "locked", passphrase=b"hunter2")
        self.assertEqual(
            self.refusal(cert, key),
            f"MATRIX_TLS_KEY {key}: the key is encrypted; give one without a passphrase",
        )

    def test_expired(self) -> None:
        ends = datetime(2020, 2, 3, 4, 5, tzinfo=UTC)
        cert, key = write_pair(self.directory / "old", begins=ends - timedelta(1), ends=ends)
        self.assertEqual(
            self.refusal(cert, key),
            f"MATRIX_TLS_CERT {cert}: the certificate expired at 2020-02-03 04:05 UTC; renew it",
        )

    def test_not_yet_valid(self) -> None:
        begins = datetime(2100, 1, 1, tzinfo=UTC)
        cert, key = write_pair(self.directory / "new", begins=begins, ends=begins + timedelta(1))
        self.assertIn("is not valid before 2100-01-01 00:00 UTC", self.refusal(cert, key))

    def test_validity_is_judged_at_the_given_time(self) -> None:
        server_context(self.cert, self.key, now=NOW)
        self.assertRaises(
            ConfigurationError, server_context, self.cert, self.key, NOW + timedelta(days=2)
        )

    def test_key_too_small_for_openssl(self) -> None:
        small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        cert, key = write_pair(self.directory / "small", small)
        self.assertEqual(
            self.refusal(cert, key),
            f"MATRIX_TLS_CERT {cert}: OpenSSL refuses it: EE_KEY_TOO_SMALL",
        )

    def test_no_line_shows_the_key(self) -> None:
        _, other = write_pair(self.directory / "other")
        secret = other.read_text().splitlines()[1]
        for cert, key in ((other, other), (self.cert, other)):
            self.assertNotIn(secret, self.refusal(cert, key))

    def test_rsa_and_a_file_with_both(self) -> None:
        cert, key = write_pair(self.directory / "rsa", rsa.generate_private_key(65537, 2048))
        both = self.directory / "both.pem"
        both.write_bytes(key.read_bytes() + cert.read_bytes())
        end = handshake(server_context(both, both), any_client())
        self.assertEqual(end.version(), "TLSv1.3")
