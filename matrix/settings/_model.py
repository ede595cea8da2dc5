"""The settings themselves: name, type, default and description of each."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from matrix.settings._checks import (
    HostPort,
    Seconds,
    Url,
    checked_command,
    checked_database,
    checked_networks,
    checked_origins,
    checked_secret,
    json_list,
    networks,
    words,
)
from matrix.settings._fly import FlySettings
from matrix.settings._issuers import OtherIssuer
from matrix.settings._snapshots import SnapshotSettings

PREFIX = "MATRIX_"

MOST_WORKERS = 32
"""Each has 5 connections to PostgreSQL; embedded mode's has room for that many."""


class Settings(SnapshotSettings, FlySettings, BaseSettings):
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

    database_url: Annotated[SecretStr, AfterValidator(checked_database)] | None = Field(
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
    daemon_token: Annotated[SecretStr, AfterValidator(checked_secret)] | None = Field(
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
    jwt_secret: Annotated[SecretStr, AfterValidator(checked_secret)] | None = Field(
        default=None,
        description="The project's legacy JWT secret, exactly as Supabase shows it. HS256 tokens "
        "are accepted only with it.",
    )
    other_issuers: Annotated[tuple[OtherIssuer, ...], NoDecode, BeforeValidator(json_list)] = Field(
        default=(),
        description="Further issuers whose tokens are accepted, as a JSON list: "
        '[{"issuer": "https://REF.supabase.co/auth/v1"}], each if need be with jwks_url, '
        "audience and role.",
    )
    oauth_clients: str = Field(
        default="",
        description="OAuth clients (client_id), separated by commas, whose tokens are accepted. "
        "Tokens of all others are refused; a user's own sign-in has none.",
    )
    anonymous_users: bool = Field(
        default=False, description="Whether anonymous users may come in. Each gets a machine."
    )
    require_aal2: bool = Field(
        default=False, description="Whether only sign-ins with a second factor are accepted."
    )
    auth_failures: int = Field(
        default=300,
        ge=0,
        description="Refused tokens per minute from one client address, after which its tokens "
        "are not checked for a while: 429. Those known to be good still work. 0: no limit.",
    )

    supabase_key: SecretStr | None = Field(
        default=None,
        description="The project's publishable (or anon) key, sent to ISSUER as apikey. Needed for "
        "the built-in sign-in, for sign-out at Supabase, and for MATRIX_SESSION_CHECK.",
    )
    supabase_cookie: str = Field(
        default="",
        description="The name of @supabase/ssr's session cookie, 'off' to accept none. Default "
        "sb-REF-auth-token, REF being the first label of the issuer's host.",
    )
    query_token: bool = Field(
        default=False,
        description="Whether a token may be in the query as access_token. Addresses are kept in "
        "histories and logs, so tickets are better.",
    )
    origins: Annotated[str, AfterValidator(checked_origins)] = Field(
        default="",
        description="Further origins (https://app.example), separated by commas, whose pages may "
        "send requests with cookies and read answers (CORS).",
    )
    login: Literal["builtin", "redirect", "off"] | None = Field(
        default=None,
        description="What a browser without a session gets: builtin (our sign-in page), redirect "
        "(to MATRIX_LOGIN_URL) or off (an error page). Default: builtin with MATRIX_SUPABASE_KEY, "
        "else off.",
    )
    login_url: Url | None = Field(
        default=None,
        description="The operator's sign-in page; the address to come back to is added as next.",
    )

    stream_grace: float = Field(
        default=60.0,
        ge=0,
        description="Seconds that an open stream outlives its token, within which any request "
        "with a newer token of the same session keeps it open.",
    )
    session_check: bool = Field(
        default=False,
        description="Whether sessions with open streams are checked at the issuer every 5 min.",
    )

    provider: Literal["local", "fly"] = Field(
        default="local",
        description="Who makes machines: local (process groups on this box) or fly (Fly Machines).",
    )
    local_command: Annotated[str, AfterValidator(checked_command)] | None = Field(
        default=None,
        description="The command that is a user's machine, words split as a shell does; "
        "{socket}, {port}, {data} and {user} are filled in. Default: our daemon.",
    )

    machine_url: Url | None = Field(
        default=None,
        description="The URL under which machines reach MATRIX_INTERNAL, as "
        "http://[fdaa:0:1::2]:9443. Default: the address that it listens on.",
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
    rest_rate: Seconds = Field(
        default=5.0,
        description="Machines that one process of the router puts to sleep in a second, at most.",
    )
    busy_max: Seconds = Field(
        default=3600.0,
        description="Seconds without use for which a machine may keep itself awake by saying that "
        "it is busy.",
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

    trusted_proxies: Annotated[str, AfterValidator(checked_networks)] = Field(
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

    @model_validator(mode="after")
    def _login_is_possible(self) -> Settings:
        if self.login == "redirect" and self.login_url is None:
            raise ValueError("MATRIX_LOGIN=redirect needs MATRIX_LOGIN_URL")
        if not self.embedded and self.supabase_key is None:
            if self.login == "builtin":
                raise ValueError("MATRIX_LOGIN=builtin needs MATRIX_SUPABASE_KEY")
            if self.session_check:
                raise ValueError("MATRIX_SESSION_CHECK needs MATRIX_SUPABASE_KEY")
        return self

    @model_validator(mode="after")
    def _fly_is_possible(self) -> Settings:
        if self.provider != "fly":
            return self
        if self.embedded:
            raise ValueError(
                "MATRIX_PROVIDER=fly needs DATABASE_URL: machines at Fly outlive an embedded Matrix"
            )
        needed = {
            "MATRIX_FLY_TOKEN": self.fly_token,
            "MATRIX_FLY_APP": self.fly_app,
            "MATRIX_FLY_IMAGE": self.fly_image,
            "MATRIX_FLY_REGIONS": self.fly_regions,
        }
        missing = [name for name, value in needed.items() if not value]
        if missing:
            raise ValueError(f"MATRIX_PROVIDER=fly needs {', '.join(missing)}")
        return self

    @property
    def accepted_clients(self) -> frozenset[str]:
        """C{oauth_clients}, taken apart."""
        return frozenset(words(self.oauth_clients))

    @property
    def accepted_origins(self) -> frozenset[bytes]:
        """C{origins}, taken apart, as browsers write them."""
        return frozenset(origin.encode() for origin in words(self.origins))

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """C{trusted_proxies}, taken apart."""
        return networks(self.trusted_proxies)

    @property
    def embedded(self) -> bool:
        """Whether this process brings its own PostgreSQL, issuer and certificate."""
        return self.database_url is None


def env_name(field: str) -> str:
    """The name under which the environment and files give C{field}, such as C{MATRIX_LISTEN}."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()
