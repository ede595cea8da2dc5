"""Every setting there is: read from the environment, a C{.env} file, or systemd credentials."""

from __future__ import annotations

import os
import shlex
import sys
import textwrap
from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from dotenv.parser import parse_stream
from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from matrix.errors import ConfigurationError
from matrix.model import host_port

PREFIX = "MATRIX_"

MOST_WORKERS = 32
"""Each has 5 connections to PostgreSQL; embedded mode's has room for that many."""

TYPO_RATIO = 0.85
"""How alike (0 to 1) an unknown name must be to a setting's to be taken for a misspelling.
Lower, and names that other programs own would be refused."""


def _checked_host_port(text: str) -> str:
    host_port(text)
    return text


def _checked_url(text: str) -> str:
    if not text.startswith(("https://", "http://")):
        raise ValueError(f"{text!r} is not a URL: write https://HOST/PATH")
    return text


def _checked_database(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("write it as postgresql://user:password@host/name")
    return url


def _checked_command(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"the words cannot be split: {str(error).lower()}") from None
    if not words:
        raise ValueError("the command has no words")
    return text


def _checked_networks(text: str) -> str:
    _networks(text)
    return text


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    found = []
    for word in text.replace(",", " ").split():
        try:
            found.append(ip_network(word))
        except ValueError as error:
            raise ValueError(
                f"{word!r} is no network ({error}): write them as 192.0.2.0/24, 2001:db8::1"
            ) from None
    return tuple(found)


def _checked_secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < 32:
        raise ValueError("a secret must have at least 32 characters")
    return secret


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
HostPort = Annotated[str, AfterValidator(_checked_host_port)]
Url = Annotated[str, AfterValidator(_checked_url)]


class Settings(BaseSettings):
    """
    The settings of C{twistd matrix}, each C{MATRIX_<NAME>} but C{DATABASE_URL}.

    The documentation of each is its C{description}; C{.env.example} lists them all, and a
    test keeps the two together.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        frozen=True,
    )

    database_url: Annotated[SecretStr, AfterValidator(_checked_database)] | None = Field(
        default=None,
        validation_alias="DATABASE_URL",
        description="PostgreSQL, as postgresql://user:password@host/name. Empty: embedded mode.",
    )
    state_dir: Path = Field(
        default=Path(".matrix"), description="Where embedded mode keeps everything it makes."
    )
    listen: HostPort | None = Field(
        default=None,
        description="HOST:PORT of the public TLS listener. Default :443, embedded localhost:8443.",
    )
    internal: HostPort | None = Field(
        default=None,
        description="HOST:PORT of the internal listener (metrics, admin API). "
        "Default 127.0.0.1:9443.",
    )
    tls_cert: Path | None = Field(
        default=None, description="PEM file with the certificate chain of the public listener."
    )
    tls_key: Path | None = Field(default=None, description="PEM file with its private key.")
    daemon_token: Annotated[SecretStr, AfterValidator(_checked_secret)] | None = Field(
        default=None,
        description="The master secret from which each machine's secrets are derived; "
        "at least 32 characters.",
    )
    admin_token: SecretStr | None = Field(
        default=None, description="The bearer token of the admin API on the internal listener."
    )

    issuer: Url | None = Field(
        default=None, description="The iss of accepted tokens: https://REF.supabase.co/auth/v1."
    )
    jwks_url: Url | None = Field(
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
    local_command: Annotated[str, AfterValidator(_checked_command)] | None = Field(
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

    workers: int = Field(
        default=1,
        ge=1,
        le=MOST_WORKERS,
        description="Processes that serve the public listener: with 2 or more a supervisor "
        "starts them and looks after them. One for each core is right.",
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

    trusted_proxies: Annotated[str, AfterValidator(_checked_networks)] = Field(
        default="",
        description="Addresses and networks (CIDR), separated by commas, of the proxies before "
        "Matrix whose X-Forwarded-For is believed. From all others the field is dropped.",
    )
    max_target: int = Field(
        default=16 * 1024, ge=1024, description="Bytes of a request's target (its URI): 414."
    )
    max_head: int = Field(default=64 * 1024, ge=4096, description="Bytes of a request's head: 431.")
    max_fields: int = Field(default=128, ge=16, description="Header fields in a request: 431.")
    max_connections: int = Field(
        default=0,
        ge=0,
        description="Open connections, those to machines included: further clients get 503. "
        "0: what the limit of open files allows, less 256.",
    )
    max_connections_per_address: int = Field(
        default=0,
        ge=0,
        description="Open connections from one client address, trusted proxies excepted: 429. "
        "0: no limit, as behind a balancer all clients share one.",
    )
    max_user_requests: int = Field(
        default=2000, ge=1, description="Requests and streams under way for one user: 429."
    )
    max_user_waiting: int = Field(
        default=2000, ge=1, description="Requests waiting for one user's machine to wake: 429."
    )
    max_held_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=0,
        description="Bytes of bodies held in all while their machines wake: 503.",
    )

    access_log: str = Field(
        default="-", description="The access log's file, '-' for standard output, 'off' for none."
    )
    access_log_format: Literal["json", "combined"] = Field(
        default="json",
        description="json: everything there is to tell; combined: the format of Apache and nginx.",
    )

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("MATRIX_TLS_CERT and MATRIX_TLS_KEY are set together or not at all")
        return self

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """C{trusted_proxies}, taken apart."""
        return _networks(self.trusted_proxies)

    @property
    def embedded(self) -> bool:
        """Whether this process brings its own PostgreSQL, issuer and certificate."""
        return self.database_url is None


def env_name(field: str) -> str:
    """The name under which the environment and files give C{field}, such as C{MATRIX_LISTEN}."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()


def load(env_file: str | Path | None = None, **overrides: object) -> Settings:
    """
    Read the settings: C{overrides} win over the environment, which wins over C{env_file}
    and over systemd's credentials directory. An empty value counts as not given.

    @param overrides: settings by field name; C{None} for one that was not given, an empty
        text to have none whatever the environment says.
    @raise ConfigurationError: a file is unreadable or a value is unusable; names the setting.
    @raise TypeError: an override is no setting.
    """
    if strangers := overrides.keys() - Settings.model_fields.keys():
        raise TypeError(f"no such setting: {', '.join(sorted(strangers))}")
    _refuse_misspelt(os.environ, "the environment")
    if env_file is not None:
        _refuse_misspelt(_env_file_names(env_file), f"--env-file {env_file}")
    given = {
        name: None if value == "" else value
        for name, value in overrides.items()
        if value is not None
    }
    try:
        return Settings(  # type: ignore[call-arg]
            _env_file=env_file,
            _secrets_dir=_credentials_directory(),
            **given,  # type: ignore[arg-type]
        )
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from None
    except SettingsError as error:
        # Only files can make a source fail; the exception's own text may quote a secret.
        cause = error.__cause__
        reason = cause.strerror if isinstance(cause, OSError) else "a file is not UTF-8 text"
        raise ConfigurationError(f"CREDENTIALS_DIRECTORY: {reason}") from None


def _credentials_directory() -> str | None:
    # A shell may inherit the variable from a service whose credentials it cannot see.
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return directory if directory and Path(directory).is_dir() else None


def _env_file_names(env_file: str | Path) -> list[str]:
    try:
        if not Path(env_file).is_file():  # pydantic-settings would skip it in silence
            raise ConfigurationError(f"--env-file {env_file}: there is no such file")
        with Path(env_file).open(encoding="utf-8") as lines:
            bindings = list(parse_stream(lines))
    except OSError as error:
        raise ConfigurationError(f"--env-file {env_file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"--env-file {env_file}: not UTF-8 text") from None
    for binding in bindings:
        if binding.error:
            raise ConfigurationError(
                f"--env-file {env_file}: line {binding.original.line} is not NAME=VALUE"
            )
    return [binding.key for binding in bindings if binding.key]


def _refuse_misspelt(names: Iterable[str], source: str) -> None:
    for name in names:
        field = name.lower().removeprefix(PREFIX.lower())
        if field in Settings.model_fields or not name.upper().startswith(PREFIX):
            continue
        if meant := get_close_matches(field, Settings.model_fields, n=1, cutoff=TYPO_RATIO):
            raise ConfigurationError(
                f"{name} in {source}: no such setting; meant {env_name(meant[0])}?"
            )


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_input=False, include_url=False):
        reason = problem.get("ctx", {}).get("error")
        text = str(reason) if isinstance(reason, ValueError) else problem["msg"]
        field = str(problem["loc"][0]) if problem["loc"] else ""
        name = env_name(field) if field in Settings.model_fields else field
        problems.append(f"{name}: {text}" if name else text)
    return "; ".join(problems)


def _default_text(field: str) -> str:
    default = Settings.model_fields[field].default
    if default is None:
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


def example() -> str:
    """The text of C{.env.example}: every setting, its description, and its default."""
    blocks = [
        "# Every setting of Matrix, each with its default. Made by `python -m matrix.settings`.\n"
        "# What stands behind an empty value is said in the description.\n"
    ]
    for field, info in Settings.model_fields.items():
        description = textwrap.fill(
            str(info.description), 98, initial_indent="# ", subsequent_indent="# "
        )
        blocks.append(f"{description}\n#{env_name(field)}={_default_text(field)}\n")
    return "\n".join(blocks)


def table() -> str:
    """The same as a Markdown table, for the operating guide."""
    lines = ["| Setting | Default | What it says |", "|---|---|---|"]
    for field, info in Settings.model_fields.items():
        default = _default_text(field)
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{env_name(field)}` | {shown} | {info.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table() if sys.argv[1:] == ["--table"] else example())
