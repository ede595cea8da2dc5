"""What keeps all but us out of our SeaweedFS: its key, and locks on the ports behind S3."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from matrix.files import write_whole

PARTS = ("master", "volume", "filer", "s3")
"""SeaweedFS's parts; each has a port, and a second one for gRPC."""

LIFE = timedelta(days=3650)
"""Of a certificate that is made anew with each start: longer than any server runs."""


def keys(root: Path) -> tuple[str, str]:
    """The access key and the secret key, made once."""
    path = root / "keys.json"
    if not path.exists():
        made = {"access": secrets.token_hex(10), "secret": secrets.token_urlsafe(32)}
        write_whole(path, json.dumps(made).encode())
    found = json.loads(path.read_text("ascii"))
    return found["access"], found["secret"]


def write_secrets(root: Path) -> None:
    """
    Write what SeaweedFS reads at its start: who may use S3, and that nobody else may do
    anything behind it. On loopback there are others, users' machines for one.
    """
    access, secret = keys(root)
    credentials = [{"accessKey": access, "secretKey": secret}]
    identity = {"name": "matrix", "credentials": credentials, "actions": ["Admin"]}
    write_whole(root / "s3.json", json.dumps({"identities": [identity]}).encode())
    _write_certificate(root)
    signed = ("signing", "signing.read", "filer_signing", "filer_signing.read")
    lines = [f'[jwt.{name}]\nkey = "{secrets.token_urlsafe(32)}"' for name in signed]
    lines.append('[grpc]\nca = "grpc.pem"')
    lines += [
        f'[grpc.{part}]\ncert = "grpc.pem"\nkey = "grpc.key"\n' for part in (*PARTS, "client")
    ]
    write_whole(root / "security.toml", "\n".join(lines).encode())


def _write_certificate(root: Path) -> None:
    """One certificate for all parts, which trust no other: whoever calls must have its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "embedded SeaweedFS")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_whole(root / "grpc.key", pem)
    write_whole(root / "grpc.pem", certificate.public_bytes(Encoding.PEM))
