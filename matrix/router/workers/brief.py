"""What a worker is told when it starts, secrets included: over a socket, never by arguments."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matrix.net import server_context, share_ticket_keys
from matrix.router.embedded import sign_in_links
from matrix.router.supplies import Supplies
from matrix.settings import Settings

_SECRET_SETTINGS = {"database_url", "daemon_token", "admin_token"}
"""They reach a worker among the supplies, as far as it needs them."""

_NOT_THEIRS = {
    "s3_endpoint", "s3_access_key", "s3_secret_key",
    "s3_keeping_access_key", "s3_keeping_secret_key",
}  # fmt: skip
"""Repositories are served by the supervisor alone."""

_SHARED_SECRETS = {"fly_token", "jwt_secret", "supabase_key"}
"""Those that a worker needs as they are."""


@dataclass(frozen=True, slots=True)
class Brief:
    """Everything that makes one worker; descriptors are inherited under the same numbers."""

    number: int
    """From 1."""
    settings: Mapping[str, Any]
    secrets: Mapping[str, str] = field(repr=False)
    """Further settings."""
    public: list[list[int]]
    """Listening sockets: the queues of each worker, by number less one."""
    output: int
    """The daemon's standard output."""
    lock: int
    """The file that is locked while something is written to it."""
    cert: str = field(repr=False)
    """The certificate chain, PEM."""
    key: str = field(repr=False)
    """Its private key, PEM."""
    tickets: str = field(repr=False)
    """What session tickets are encrypted with, in hex: a session goes on at any worker."""
    dsn: str = field(repr=False)
    issuer: str
    jwks_url: str
    master: str = field(repr=False)
    codes: Mapping[str, str] | None = field(repr=False)
    """Users of sign-in links, by code, in embedded mode."""

    def dump(self) -> bytes:
        """For the other side."""
        return json.dumps(asdict(self)).encode("ascii")

    @classmethod
    def load(cls, text: bytes) -> Brief:
        """What L{dump} made."""
        return cls(**json.loads(text))

    @property
    def configured(self) -> Settings:
        """The settings, as the supervisor has them, whatever the environment says now."""
        given = {**self.settings, **self.secrets}
        if self.codes is None:
            given["DATABASE_URL"] = self.dsn  # else these would be an embedded Matrix's
        return Settings(_env_file=None, **given)  # type: ignore[call-arg]

    @property
    def supplies(self) -> Supplies:
        """What the worker works with; the admin API is not its affair."""
        return Supplies(
            dsn=self.dsn,
            issuer=self.issuer,
            jwks_url=self.jwks_url,
            master=self.master,
            admin_token=None,
            links=None
            if self.codes is None
            else sign_in_links(Path(self.settings["state_dir"]), self.codes),
        )

    def listeners(self) -> dict[int, list[socket.socket]]:
        """The sockets that this process has inherited: its own and those of others, by number."""
        return {
            number: [socket.socket(fileno=descriptor) for descriptor in queues]
            for number, queues in enumerate(self.public, 1)
        }

    def context(self) -> Any:
        """
        The TLS context of the listeners. The files may be gone, renewed by half, or closed to
        the user that we run as now; what the supervisor has read is not.
        """
        cert, key = _in_memory(self.cert), _in_memory(self.key)
        try:
            context = server_context(Path(f"/proc/self/fd/{cert}"), Path(f"/proc/self/fd/{key}"))
        finally:
            os.close(cert)
            os.close(key)
        share_ticket_keys(context, bytes.fromhex(self.tickets))
        return context


def settings_for_workers(settings: Settings) -> dict[str, Any]:
    """The settings without secrets, ready for JSON."""
    excluded = _SECRET_SETTINGS | _SHARED_SECRETS | _NOT_THEIRS
    return settings.model_dump(mode="json", exclude=excluded)


def secrets_for_workers(settings: Settings) -> dict[str, str]:
    """The secret settings that workers need, ready for JSON."""
    given = {name: getattr(settings, name) for name in _SHARED_SECRETS}
    return {name: one.get_secret_value() for name, one in given.items() if one is not None}


def _in_memory(text: str) -> int:
    descriptor = os.memfd_create("matrix", os.MFD_CLOEXEC)
    os.write(descriptor, text.encode("ascii"))
    return descriptor
