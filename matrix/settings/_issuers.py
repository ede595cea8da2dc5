"""What a setting says of a further issuer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from matrix.settings._checks import Url


class OtherIssuer(BaseModel):
    """A further issuer whose tokens are accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Url
    jwks_url: Url | None = None
    """Where its keys are; at their usual place if C{None}."""
    audience: str = "authenticated"
    role: str = "authenticated"
