"""The settings of machines at Fly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings

from matrix.settings._checks import (
    Url,
    checked_api,
    checked_app,
    checked_regions,
    checked_sizes,
    words,
)


class FlySettings(BaseSettings):
    """Where machines at Fly are made, and of what."""

    fly_token: SecretStr | None = Field(
        default=None,
        description="An access token of the organization at Fly (fly tokens create org).",
    )
    fly_org: str = Field(default="personal", description="The organization's slug at Fly.")
    fly_app: Annotated[str, AfterValidator(checked_app)] | None = Field(
        default=None,
        description="The app at Fly that holds all users' machines and nothing else. Made if it "
        "is not there.",
    )
    fly_api: Annotated[Url, AfterValidator(checked_api)] = Field(
        default="https://api.machines.dev",
        description="Fly's Machines API; on the mesh http://_api.internal:4280.",
    )
    fly_regions: Annotated[str, AfterValidator(checked_regions)] = Field(
        default="",
        description="Regions of Fly (fra, ams), separated by commas, the best first: where one "
        "has no room, the next is tried.",
    )
    fly_image: str | None = Field(
        default=None, description="The container image that users' machines run: our daemon's."
    )
    fly_template: Path | None = Field(
        default=None,
        description="The fly.toml template of users' machines. Default: the one that comes with "
        "Matrix.",
    )
    fly_sizes: Annotated[str, AfterValidator(checked_sizes)] = Field(
        default="",
        description="Sizes of machines, separated by commas, as SIZE:MEMORY "
        "(shared-cpu-1x:512mb, shared-cpu-2x:1gb), that are tried in turn where there is no room "
        "for the template's.",
    )
    fly_pool: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Machines that are kept ready, without a user, for those who come first.",
    )
    fly_quarantine: float = Field(
        default=7 * 86400.0,
        ge=0,
        description="Seconds after which machines and volumes of ours at Fly that belong to no "
        "user are deleted. 0: never, they are reported only.",
    )

    @property
    def fly_places(self) -> tuple[str, ...]:
        """C{fly_regions}, taken apart."""
        return tuple(words(self.fly_regions))

    @property
    def fly_spare_sizes(self) -> tuple[str, ...]:
        """C{fly_sizes}, taken apart."""
        return tuple(words(self.fly_sizes))
