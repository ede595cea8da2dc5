"""Embedded mode's certificate authority: it can vouch for C{localhost} and for nothing else."""

from __future__ import annotations

import fcntl
import ipaddress
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.logger import Logger

from matrix.files import write_whole

_log = Logger()

CA_LIFE = timedelta(days=3653)
"""Ten years: trusting it again each year would only teach people to click warnings away."""
LEAF_LIFE = timedelta(days=397)
"""Browsers refuse leaf certificates that live longer than 398 days."""
RENEWAL = timedelta(days=7)
"""What a certificate must have left at a start; none is renewed while a process runs."""
SKEW = timedelta(days=1)
"""Certificates begin in the past, for clients whose clock is behind."""

DNS_NAMES = ("localhost", "*.localhost")
ADDRESSES = ("127.0.0.1", "::1")
NETWORKS = ("127.0.0.0/8", "::1/128")


def _utc_now() -> datetime:
    return datetime.now(UTC)


@frozen
class _Pair:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def valid(self, now: datetime, until: datetime) -> bool:
        certificate = self.certificate
        return certificate.not_valid_before_utc <= now and until < certificate.not_valid_after_utc


@frozen
class LocalAuthority:
    """
    A certificate authority in a directory of its own, and one certificate for this machine.

    Its certificate carries name constraints (RFC 5280 section 4.2.1.10), so a browser that
    trusts it trusts it for C{localhost} only, whoever gets hold of the key.
    """

    directory: Path
    now: Callable[[], datetime] = field(default=_utc_now)

    @property
    def ca_path(self) -> Path:
        """The authority's certificate: what a client is told to trust."""
        return self.directory / "ca.pem"

    def ensure(self) -> tuple[Path, Path, Path]:
        """
        Make what is missing, damaged or about to expire; keep the rest.

        @return: the paths of the authority's certificate, of the certificate chain for
            C{localhost}, and of its key.
        @raise OSError: the directory cannot be written.
        """
        cert_path, key_path = self.directory / "localhost.pem", self.directory / "localhost.key"
        ca_key_path = self.directory / "ca.key"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self.directory / "lock"):
            now = self.now()
            ca = _load(self.ca_path, ca_key_path)
            if ca is None or not ca.valid(now, until=now + LEAF_LIFE):
                ca = _make_ca(now)
                _save(ca, self.ca_path, ca_key_path)
                _log.info("made a certificate authority for localhost: {path}", path=self.ca_path)
            leaf = _load(cert_path, key_path)
            if leaf is None or not leaf.valid(now, now + RENEWAL) or not _issued(ca, leaf):
                _save(_make_leaf(ca, now), cert_path, key_path, chain=[ca.certificate])
                _log.info("made a certificate for localhost: {path}", path=cert_path)
        return self.ca_path, cert_path, key_path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file, so that two processes never mix the halves of a pair."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _load(cert_path: Path, key_path: Path) -> _Pair | None:
    """The pair, or C{None} if it must be made anew: absent, damaged, or not a pair."""
    try:
        certificate = x509.load_pem_x509_certificate(cert_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        _log.warn("damaged, made anew: {path}", path=cert_path)
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    # A crash between the two writes leaves a new key beside an old certificate.
    return _Pair(certificate, key) if key.public_key() == certificate.public_key() else None


def _issued(ca: _Pair, leaf: _Pair) -> bool:
    try:
        leaf.certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _save(
    pair: _Pair, cert_path: Path, key_path: Path, chain: Sequence[x509.Certificate] = ()
) -> None:
    key = pair.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_whole(key_path, key, mode=0o600)
    certificates = (pair.certificate, *chain)
    pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)
    write_whole(cert_path, pem, mode=0o644)


def _make_ca(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Two authorities of one name in a trust store would be taken for each other.
    name = _name(f"Matrix local authority {subject_key.digest.hex()[:8]}")
    networks = [x509.IPAddress(ipaddress.ip_network(network)) for network in NETWORKS]
    builder = (
        _builder(name, name, key, now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.NameConstraints(
                permitted_subtrees=[x509.DNSName("localhost"), *networks], excluded_subtrees=None
            ),
            critical=True,
        )
        .add_extension(subject_key, critical=False)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _make_leaf(ca: _Pair, now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(name) for name in DNS_NAMES]
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ADDRESSES]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(ca.certificate.subject, _name("localhost"), key, now, LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
        .add_extension(issuer_key, critical=False)
        .add_extension(subject_key, critical=False)
    )
    return _Pair(builder.sign(ca.key, hashes.SHA256()), key)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now - SKEW + life)
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
