"""The public listener's TLS: one context, and a plain reason whenever it cannot be made."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from matrix.errors import ConfigurationError
from matrix.net._openssl import set_groups

CERT_SETTING = "MATRIX_TLS_CERT"
KEY_SETTING = "MATRIX_TLS_KEY"

CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)
"""For TLS 1.2: what Mozilla's intermediate profile has without finite-field Diffie-Hellman.
The three suites of TLS 1.3 are all sound and not for us to choose."""


def server_context(cert: Path, key: Path, now: datetime | None = None) -> ssl.SSLContext:
    """
    The context of the public listener: TLS 1.2 and 1.3, forward secret AEAD ciphers of which
    the client picks the one it is fastest with, session tickets, no compression, no
    renegotiation, and no other application protocol than HTTP/1.1.

    @param cert: PEM, the listener's certificate first, then its chain.
    @param key: PEM, the private key, not encrypted.
    @param now: when the certificate must be valid; by default at the time of the call.
    @raise ConfigurationError: one line that names the setting and what is wrong with it.
    """
    _check_pair(cert, key, now or datetime.now(UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    set_groups(context)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError as error:  # a rule of OpenSSL's own, such as a key that is too small
        raise ConfigurationError(
            f"{CERT_SETTING} {cert}: OpenSSL refuses it: {error.reason or error}"
        ) from None
    return context


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{setting} {path}: {error.strerror}") from None


def _check_pair(cert: Path, key: Path, now: datetime) -> None:
    """Find what is wrong ourselves: OpenSSL says only "PEM lib" for half of it."""
    certificate = _certificate(cert, _read(CERT_SETTING, cert))
    if now > certificate.not_valid_after_utc:
        raise ConfigurationError(
            f"{CERT_SETTING} {cert}: the certificate expired at "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it"
        )
    if now < certificate.not_valid_before_utc:
        raise ConfigurationError(
            f"{CERT_SETTING} {cert}: the certificate is not valid before "
            f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; is the clock right?"
        )
    private = _private_key(key, _read(KEY_SETTING, key))
    if private.public_key() != certificate.public_key():
        raise ConfigurationError(
            f"{KEY_SETTING} {key}: this key does not belong to the first certificate in {cert}"
        )


def _certificate(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise ConfigurationError(f"{CERT_SETTING} {path}: no certificate in PEM form") from None


class _PrivateKey(Protocol):
    def public_key(self) -> object: ...


def _private_key(path: Path, pem: bytes) -> _PrivateKey:
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise ConfigurationError(
            f"{KEY_SETTING} {path}: the key is encrypted; give one without a passphrase"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{KEY_SETTING} {path}: no private key in PEM form") from None
