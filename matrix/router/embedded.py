"""Embedded mode: what a router brings along when there is no one to bring it."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matrix.directory import EmbeddedPostgres
from matrix.errors import ConfigurationError
from matrix.files import write_whole
from matrix.net import LocalAuthority
from matrix.router.signin.links import Account, SignInLinks
from matrix.router.supplies import Supplies
from matrix.settings import Settings
from matrix.testing.issuer import LocalIssuer

USERS = ("alice", "bob")

MASTER_FILE = "master-secret"
"""Where in the state directory the master secret is, unless it is set."""


class Embedded:
    """
    A state directory with everything a router needs: PostgreSQL, a token issuer, a
    certificate for localhost, and secrets. Nothing is mocked; only the suppliers differ.
    """

    def __init__(self, reactor: Any, settings: Settings) -> None:
        """
        @raise ConfigurationError: the state directory is unusable, or in use.
        """
        self._reactor = reactor
        self.directory = directory = settings.state_dir.absolute()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # Machines and PostgreSQL run under other user ids and must pass, not look.
            directory.chmod(0o711)
            self._lock = _lock(directory / "lock")
            self._issuer = LocalIssuer.open(directory / "issuer")
            self.ca, self.cert, self.key = LocalAuthority(directory / "tls").ensure()
            self.admin_token = settings.admin_token or _secret(directory / "admin-token")
            self._master = settings.daemon_token or _secret(directory / MASTER_FILE)
        except OSError as error:
            path = error.filename or directory
            raise ConfigurationError(f"MATRIX_STATE_DIR: {error.strerror}: {path}") from None
        self._postgres = EmbeddedPostgres(directory / "postgres", reactor)
        self.codes = {secrets.token_urlsafe(16): name for name in USERS}

    def settle(self, settings: Settings) -> Settings:
        """The settings with what is different here unless it was set. The state directory stays
        the same even if twistd, or whoever we start, works in another one."""
        found: dict[str, object] = {"state_dir": self.directory}
        if "access_log" not in settings.model_fields_set:
            found["access_log"] = str(self.directory / "access.log")
        return settings.model_copy(update=found)

    async def start(self) -> Supplies:
        """
        Start PostgreSQL and the issuer.

        @raise ConfigurationError: one does not start; says why in one line.
        """
        await self._issuer.listen(self._reactor)
        return Supplies(
            dsn=await self._postgres.start(),
            issuer=self._issuer.issuer,
            jwks_url=self._issuer.jwks_url,
            master=_reveal(self._master),
            admin_token=_reveal(self.admin_token),
            links=sign_in_links(self.directory, self.codes),
        )

    async def stop(self) -> None:
        """Stop what was started; no process is left."""
        (self.directory / "run.json").unlink(missing_ok=True)
        await self._issuer.close()
        await self._postgres.stop()
        os.close(self._lock)

    def announce(self, public: str, internal: str, say: Callable[[str], None]) -> None:
        """Write down where we are for the C{matrix} command, and tell the person who started us."""
        run = {
            "public": public,
            "internal": internal,
            "admin_token": _reveal(self.admin_token),
            "pid": os.getpid(),
            "ca": str(self.ca),
        }
        write_whole(self.directory / "run.json", json.dumps(run).encode())
        token = self._issuer.mint("alice")
        code, email = next(iter(self.codes)), self._issuer.user("alice").email
        say(
            "\nMatrix is ready, in embedded mode: everything runs on this machine, "
            "for this machine only.\n\n"
            f"  proxy      {public}\n"
            f"  internal   {internal}\n"
            f"  sign in    {public}-/signin?code={code}   (alice, in a browser)\n"
            f"  or with    {email}, password {self._issuer.password('alice')}\n"
            f"  certificate authority for browsers and curl: {self.ca}\n\n"
            f'  curl --cacert {self.ca} -H "Authorization: Bearer {token}" {public}\n\n'
            "  More tokens: matrix token alice.  Ctrl-C stops everything.\n"
        )


def sign_in_links(directory: Path, codes: Mapping[str, str]) -> SignInLinks:
    """
    What stands behind the links of an embedded Matrix.

    @param directory: its state directory.
    @param codes: each code's user.
    """
    issuer = LocalIssuer.open(directory / "issuer")
    return SignInLinks(
        {
            code: Account(issuer.user(name).email, issuer.password(name))
            for code, name in codes.items()
        }
    )


def check_loopback(setting: str, host: str | None) -> None:
    """
    @raise ConfigurationError: embedded mode would be open to the world.
    """
    if host is not None and host not in ("localhost", "127.0.0.1", "::1"):
        raise ConfigurationError(
            f"{setting}: embedded mode listens on loopback only, not on {host}; its keys and "
            "users are for trying things out. Set DATABASE_URL to run for real"
        )


def _lock(path: Path) -> int:
    """Hold the state directory: two routers in it would stop each other's machines."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(lock, 20).decode("ascii", "replace").strip()
        os.close(lock)
        raise ConfigurationError(
            f"another Matrix (process {owner}) runs in {path.parent}: stop it, or give this one "
            "a directory of its own with MATRIX_STATE_DIR"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())
    return lock


def _secret(path: Path) -> str:
    """The secret kept in a file, made at first."""
    if not path.exists():
        write_whole(path, secrets.token_urlsafe(48).encode())
    return path.read_text("ascii").strip()


def _reveal(secret: Any) -> str:
    return secret if isinstance(secret, str) else str(secret.get_secret_value())
