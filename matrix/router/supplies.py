"""What a router is given to work with, whoever supplies it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from matrix.errors import ConfigurationError
from matrix.settings import Settings

if TYPE_CHECKING:
    from matrix.router.signin.links import SignInLinks

_USUAL_KEYS = "/.well-known/jwks.json"


@dataclass(frozen=True, slots=True)
class Supplies:
    """Database, issuer and secrets."""

    dsn: str = field(repr=False)
    issuer: str
    jwks_url: str
    master: str = field(repr=False)
    admin_token: str | None = field(repr=False)
    links: SignInLinks | None = None
    """Those that embedded mode has printed."""

    @property
    def api_url(self) -> str:
        """Where the issuer's REST API is, without a slash at the end. In embedded mode the
        issuer's name is no address, and only that of its keys is known."""
        return (
            (self.issuer if self.links is None else self.jwks_url)
            .removesuffix(_USUAL_KEYS)
            .rstrip("/")
        )


def from_settings(settings: Settings) -> Supplies:
    """
    What the operator supplies.

    @raise ConfigurationError: something is missing; names the setting.
    """
    needed = {
        "DATABASE_URL": settings.database_url,
        "MATRIX_ISSUER": settings.issuer,
        "MATRIX_DAEMON_TOKEN": settings.daemon_token,
        "MATRIX_TLS_CERT": settings.tls_cert,
    }
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise ConfigurationError(f"{', '.join(missing)}: set this, or try --embedded")
    assert settings.issuer
    check_issuers(settings.issuer, settings)
    assert settings.database_url
    assert settings.daemon_token
    return Supplies(
        dsn=settings.database_url.get_secret_value(),
        issuer=settings.issuer,
        jwks_url=settings.jwks_url or usual_keys(settings.issuer),
        master=settings.daemon_token.get_secret_value(),
        admin_token=settings.admin_token.get_secret_value() if settings.admin_token else None,
    )


def usual_keys(issuer: str) -> str:
    """Where an issuer has its keys unless it says otherwise (facts/supabase.md section 2)."""
    return issuer.rstrip("/") + _USUAL_KEYS


def check_issuers(main: str, settings: Settings) -> None:
    """
    @raise ConfigurationError: an issuer is configured twice, so that its terms are not clear.
    """
    names = [main, *(other.issuer for other in settings.other_issuers)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"MATRIX_OTHER_ISSUERS: {name} is there twice, or is MATRIX_ISSUER; name it once"
            )
