"""The secrets derived from the master secret: each machine's, and the routers' own."""

from __future__ import annotations

from base64 import urlsafe_b64encode

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from matrix.errors import ConfigurationError
from matrix.model import UserId

MIN_MASTER = 32
"""Characters. Shorter ones can be guessed offline from any secret derived from them."""

SECRET_BYTES = 32
"""As strong as the hash; 43 characters of text."""

ROUTER_TO_DAEMON = "router-to-daemon"
MACHINE_TO_ROUTER = "machine-to-router"
RESTIC_PASSWORD = "restic-password"  # noqa: S105 - a label, not a password
RESTIC_ACCOUNT = "restic-account"
BROWSER_SESSIONS = "browser-sessions"

# Changing any part of what is hashed changes every secret there is: a new scheme gets a
# new version here, and the old one stays readable until all machines have moved.
_SALT = b"matrix secrets v1"


def derive_key(master: str, label: str) -> bytes:
    """The key that all routers share for one purpose. No machine's secret has its info, which
    has a user and an epoch in it."""
    derived = HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=_SALT, info=label.encode())
    return derived.derive(master.encode())


class MachineSecrets:
    """
    The secrets of all machines (HKDF, RFC 5869). One machine's tell nothing of another's,
    and counting up an epoch replaces one machine's without touching the rest.
    """

    def __init__(self, master: str) -> None:
        """
        @raise ConfigurationError: the master secret is too short.
        """
        if len(master) < MIN_MASTER:
            raise ConfigurationError(
                f"MATRIX_DAEMON_TOKEN must have at least {MIN_MASTER} characters "
                f"(it has {len(master)}); make one with: openssl rand -base64 48"
            )
        self._master = master.encode()

    def __repr__(self) -> str:
        return "<MachineSecrets>"

    def derive(self, label: str, user_id: UserId, epoch: int) -> str:
        """
        The secret for one purpose, as URL-safe text. The same arguments always give the
        same secret.
        """
        # The parts hold no NUL, so no two combinations give the same info.
        info = b"\0".join((label.encode(), user_id.encode(), b"%d" % epoch))
        derived = HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=_SALT, info=info)
        return urlsafe_b64encode(derived.derive(self._master)).rstrip(b"=").decode("ascii")

    def router_to_daemon(self, user_id: UserId, epoch: int) -> str:
        """What the router shows to a machine's daemon, as a bearer token."""
        return self.derive(ROUTER_TO_DAEMON, user_id, epoch)

    def machine_to_router(self, user_id: UserId, epoch: int) -> str:
        """What a machine shows to the router's internal listener."""
        return self.derive(MACHINE_TO_ROUTER, user_id, epoch)

    def restic_account(self, user_id: UserId, epoch: int) -> str:
        """What a machine's restic shows to the repository service, as the Basic password."""
        return self.derive(RESTIC_ACCOUNT, user_id, epoch)

    def restic_password(self, user_id: UserId) -> str:
        """
        What a user's repository is encrypted with. It is of no epoch: a new one could not open
        what is there. Who has it alone gets at nothing; for that it takes the account.
        """
        return self.derive(RESTIC_PASSWORD, user_id, 0)
