"""Every setting there is: read from the environment, a C{.env} file, or systemd credentials."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from matrix.errors import ConfigurationError

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """
    The settings of C{twistd matrix}, each C{MATRIX_<NAME>} but C{DATABASE_URL}.

    The documentation of each is its C{description}; C{.env.example} lists them all, and a
    test keeps the two together.
    """

    model_config = SettingsConfigDict(
        env_prefix="MATRIX_", extra="ignore", hide_input_in_errors=True, frozen=True
    )

    database_url: SecretStr | None = Field(
        default=None,
        validation_alias="DATABASE_URL",
        description="PostgreSQL, as postgresql://user:password@host/name. Empty: embedded mode.",
    )
    state_dir: Path = Field(
        default=Path(".matrix"), description="Where embedded mode keeps everything it makes."
    )
    listen: str | None = Field(
        default=None,
        description="HOST:PORT of the public TLS listener. Default :443, embedded localhost:8443.",
    )
    internal: str | None = Field(
        default=None,
        description="HOST:PORT of the internal listener (metrics, admin API). "
        "Default 127.0.0.1:9443.",
    )
    tls_cert: Path | None = Field(
        default=None, description="PEM file with the certificate chain of the public listener."
    )
    tls_key: Path | None = Field(default=None, description="PEM file with its private key.")
    daemon_token: SecretStr | None = Field(
        default=None,
        description="The master secret from which each machine's secrets are derived; "
        "at least 32 characters.",
    )
    admin_token: SecretStr | None = Field(
        default=None, description="The bearer token of the admin API on the internal listener."
    )

    issuer: str | None = Field(
        default=None, description="The iss of accepted tokens: https://REF.supabase.co/auth/v1."
    )
    jwks_url: str | None = Field(
        default=None,
        description="Where the issuer's keys are. Default ISSUER/.well-known/jwks.json.",
    )
    audience: str = Field(default="authenticated", description="The aud of accepted tokens.")
    role: str = Field(default="authenticated", description="The role of accepted tokens.")
    token_leeway: float = Field(
        default=30.0, ge=0, description="Seconds of clock skew tolerated in exp and iat."
    )

    provider: Literal["local"] = Field(
        default="local", description="Who makes machines: local (process groups on this box)."
    )
    local_command: str | None = Field(
        default=None,
        description="The command that is a user's machine, words split as a shell does; "
        "{socket}, {port}, {data} and {user} are filled in. Default: our daemon.",
    )

    idle_timeout: Seconds = Field(
        default=900.0, description="Seconds without use after which a machine is suspended."
    )
    wake_timeout: Seconds = Field(
        default=30.0, description="Seconds a request waits for its machine to wake."
    )
    navigation_hold: float = Field(
        default=1.0, ge=0, description="Seconds a browser waits before it gets the waking page."
    )
    stale_max: Seconds = Field(
        default=600.0,
        description="Seconds the route table is served while the directory is unreachable.",
    )

    handshake_timeout: Seconds = Field(default=10.0, description="Seconds for a TLS handshake.")
    head_timeout: Seconds = Field(
        default=10.0, description="Seconds for a request head to arrive whole."
    )
    body_timeout: Seconds = Field(
        default=60.0, description="Seconds of silence allowed inside a body."
    )
    response_timeout: Seconds = Field(
        default=120.0, description="Seconds for a machine's first response byte."
    )
    keepalive_timeout: Seconds = Field(
        default=75.0, description="Seconds an idle client connection stays open."
    )
    stream_timeout: Seconds = Field(
        default=3600.0, description="Seconds of silence allowed on an SSE stream or WebSocket."
    )

    access_log: str = Field(
        default="-", description="The access log's file, '-' for standard output, 'off' for none."
    )

    @property
    def embedded(self) -> bool:
        """Whether this process brings its own PostgreSQL, issuer and certificate."""
        return self.database_url is None


def load(env_file: str | Path | None = None, **overrides: object) -> Settings:
    """
    Read the settings: C{overrides} win over the environment, which wins over C{env_file}
    and over systemd's credentials directory.

    @raise ConfigurationError: a file is unreadable or a value is unusable; names the setting.
    """
    if env_file is not None and not Path(env_file).is_file():
        raise ConfigurationError(f"--env-file {env_file}: there is no such file")
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(  # type: ignore[call-arg]
            _env_file=env_file,
            _secrets_dir=os.environ.get("CREDENTIALS_DIRECTORY"),
            **given,  # type: ignore[arg-type]
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        setting = name if name.isupper() else f"MATRIX_{name.upper()}"
        raise ConfigurationError(f"{setting}: {first['msg']}") from None
