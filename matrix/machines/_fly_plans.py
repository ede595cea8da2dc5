"""What each user's machine on Fly is to be like: the operator's template, filled in. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from matrix.errors import ConfigurationError
from matrix.machines._flytoml import Idle, read
from matrix.machines._plan import MachinePlan, plan
from matrix.machines._template import Value, fill
from matrix.model import UserId

TEMPLATE = Path(__file__).with_name("fly.toml.tmpl")
"""The one that comes with Matrix."""

USER_KEY, CONFIG_KEY = "matrix_user", "matrix_config"
"""Metadata of a machine: whose it is, and what it was made from (a digest)."""

REDACTED = "redacted"
"""In place of secrets where people may look."""

_NOBODY = UserId("00000000-0000-4000-8000-000000000000")


@dataclass(frozen=True, slots=True)
class FlyPlace:
    """Where machines are made, and from what."""

    org: str
    app: str
    regions: tuple[str, ...]
    """Those that may be used, the best first."""
    image: str
    template: Path = TEMPLATE


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one user's machine is to be like."""

    user_id: UserId
    text: str = field(repr=False)
    """The template, filled in; holds secrets."""
    plan: MachinePlan = field(repr=False)

    @property
    def region(self) -> str:
        return self.plan.region

    @property
    def port(self) -> int:
        """The one on which the machine listens."""
        return self.plan.port

    def volume(self) -> dict[str, Any]:
        """The body that makes its volume."""
        name = volume_name(self.user_id)
        return replace(self.plan.volume, name=name).request(self.plan.region, self.plan.guest)

    def config(self, volume_id: str) -> dict[str, Any]:
        """The whole machine config, which says whose it is and what it was made from."""
        config = self.plan.config(volume_id)
        [mount] = config["mounts"]
        config["mounts"] = [mount | {"name": volume_name(self.user_id)}]
        config["metadata"] = {**config["metadata"], USER_KEY: self.user_id}
        config["metadata"][CONFIG_KEY] = _digest(config)
        return config

    def differs(self, metadata: Mapping[str, str], volume_id: str) -> bool:
        """Whether a machine of this metadata was made from anything else."""
        wanted: Mapping[str, str] = self.config(volume_id)["metadata"]
        return metadata.get(CONFIG_KEY) != wanted[CONFIG_KEY]


class FlyPlans:
    """Fills in the template for users."""

    def __init__(self, place: FlyPlace) -> None:
        """
        @raise ConfigurationError: the template cannot be read, or describes no machine.
        """
        self.place = place
        try:
            self._template = place.template.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ConfigurationError(f"MATRIX_FLY_TEMPLATE: {place.template}: {reason}") from None
        usual = self.wanted(_NOBODY, {"MATRIX_MACHINE_TOKEN": REDACTED}).plan
        self.on_idle: Idle = usual.on_idle
        """What becomes of machines that nobody uses."""
        self.port = usual.port
        """The one on which machines listen."""

    def wanted(
        self, user_id: UserId, environment: Mapping[str, str], region: str | None = None
    ) -> Wanted:
        """
        What a user's machine is to be like.

        @param environment: what its processes get besides what the template says.
        @param region: the first of those that may be used by default.
        @raise ConfigurationError: the template does not fit.
        """
        place = self.place
        values: dict[str, Value | None] = {
            "APP": place.app,
            "REGION": region or place.regions[0],
            "IMAGE": place.image,
            "USER": user_id,
            "MACHINE_TOKEN": environment.get("MATRIX_MACHINE_TOKEN"),
        }
        source = str(place.template)
        text = fill(self._template, values, source)
        return Wanted(user_id, text, plan(read(text, source)).with_environment(environment))


def volume_name(user_id: UserId) -> str:
    """
    The name of a user's volume. Fly has at most 30 characters of C{[a-z0-9_]} (facts/fly.md
    section 7), so the id is written in base 32.
    """
    return f"u_{_base32(user_id)}"


def machine_name(user_id: UserId) -> str:
    """The name of a user's machine: unique in its app, so that none is made twice."""
    return f"u-{_base32(user_id)}"


def _base32(user_id: UserId) -> str:
    return base64.b32encode(UUID(user_id).bytes).decode().rstrip("=").lower()


def _digest(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
