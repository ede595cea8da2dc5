"""What each user's machine on Fly is to be like: the operator's template, filled in. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from matrix.errors import ConfigurationError
from matrix.machines._flytoml import Idle, Vm, read
from matrix.machines._plan import MachinePlan, plan
from matrix.machines._template import Value, fill
from matrix.model import UserId

TEMPLATE = Path(__file__).with_name("fly.toml.tmpl")
"""The one that comes with Matrix."""

USER_KEY, CONFIG_KEY = "matrix_user", "matrix_config"
"""Metadata of a machine: whose it is, and what it was made from (a digest)."""

REDACTED = "redacted"
"""In place of secrets where people may look."""

STOCK_KEY = "matrix_stock"
"""Metadata of a machine without a user, instead of whose it is: its place in stock."""

_IMAGE = re.compile(
    r"""
      (?: [a-zA-Z0-9] [a-zA-Z0-9.-]* (?: :[0-9]+ )? / )?             # a registry
      [a-z0-9]+ (?: [._/-]+ [a-z0-9]+ )*                              # a name
      (?: : [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127} )?                     # a tag
      (?: @ [a-z0-9]+ : [0-9a-f]{32,} )?                              # a digest
    """,
    re.VERBOSE,
)
"""References as registries take them (OCI distribution specification, section 2), near enough to
find what was mistyped."""

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
    sizes: tuple[str, ...] = ()
    """Those that are tried where there is no room for the template's, as SIZE:MEMORY."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one user's machine is to be like, or one in stock."""

    user_id: UserId
    """Whose it is, or its place in stock."""
    text: str = field(repr=False)
    """The template, filled in; holds secrets."""
    plan: MachinePlan = field(repr=False)
    size: str | None = None
    """As SIZE:MEMORY; the template's if C{None}."""
    is_stock: bool = False

    @property
    def owner(self) -> dict[str, str]:
        """The metadata that say whose it is."""
        return {STOCK_KEY if self.is_stock else USER_KEY: self.user_id}

    @property
    def machine_name(self) -> str:
        """Unique in its app, so that none is made twice."""
        return _name("s-" if self.is_stock else "u-", self.user_id)

    @property
    def volume_name(self) -> str:
        """By which a volume is found of which only its making is known."""
        return _name("s_" if self.is_stock else "u_", self.user_id)

    @property
    def region(self) -> str:
        return self.plan.region

    @property
    def port(self) -> int:
        """The one on which the machine listens."""
        return self.plan.port

    def volume(self, source_id: str | None = None) -> dict[str, Any]:
        """
        The body that makes its volume.

        @param source_id: of the volume whose data it is to have.
        """
        named = replace(self.plan.volume, name=self.volume_name)
        body = named.request(self.plan.region, self.plan.guest)
        if source_id is not None:
            del body["size_gb"]  # as large as that one has grown to be
            body["source_volume_id"] = source_id
        return body

    def config(self, volume_id: str) -> dict[str, Any]:
        """The whole machine config, which says whose it is and what it was made from."""
        config = self.plan.config(volume_id)
        [mount] = config["mounts"]
        config["mounts"] = [mount | {"name": self.volume_name}]
        config["metadata"] = {**config["metadata"], **self.owner}
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
        @raise ConfigurationError: the template cannot be read, or describes no machine; the image
            is none; there are no machines of a size.
        """
        self.place = place
        if not _IMAGE.fullmatch(place.image):
            raise ConfigurationError(
                f"MATRIX_FLY_IMAGE: {place.image!r} is no image: write REGISTRY/NAME:TAG, as in "
                "registry.fly.io/example-users:2026-11-23"
            )
        try:
            self._template = place.template.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ConfigurationError(f"MATRIX_FLY_TEMPLATE: {place.template}: {reason}") from None
        self._guests = {size: _guest(size) for size in place.sizes}
        usual = self.stock(_NOBODY)
        self.port = usual.port
        """The one on which machines listen."""
        self.made_of = _digest(usual.config(""))
        """What machines are made of now, all that is one user's left aside."""
        self._usual = usual.plan

    def on_idle(self, size: str | None) -> Idle:
        """What becomes of machines of a size when nobody uses them."""
        return self._sized(self._usual, size).on_idle

    def stock(self, place_id: UserId, region: str | None = None, size: str | None = None) -> Wanted:
        """What a machine without a user is to be like. It holds no secret, and is never started."""
        wanted = self.wanted(place_id, {"MATRIX_MACHINE_TOKEN": REDACTED}, region, size)
        return replace(wanted, is_stock=True)

    def wanted(
        self,
        user_id: UserId,
        environment: Mapping[str, str],
        region: str | None = None,
        size: str | None = None,
    ) -> Wanted:
        """
        What a user's machine is to be like.

        @param environment: what its processes get besides what the template says.
        @param region: the first of those that may be used by default.
        @param size: as SIZE:MEMORY, instead of the template's.
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
        found = plan(read(text, source)).with_environment(environment)
        return Wanted(user_id, text, self._sized(found, size), size)

    def _sized(self, found: MachinePlan, size: str | None) -> MachinePlan:
        if size is None:
            return found
        # A machine keeps a size that is in the settings no more.
        return found.with_guest(self._guests.get(size) or _guest(size))


def volume_name(user_id: UserId) -> str:
    """The name of a user's volume."""
    return _name("u_", user_id)


def machine_name(user_id: UserId) -> str:
    """The name of a user's first machine."""
    return _name("u-", user_id)


def _name(kind: str, user_id: UserId) -> str:
    # Fly has at most 30 characters of [a-z0-9_] for a volume's (facts/fly.md section 7).
    return kind + base64.b32encode(UUID(user_id).bytes).decode().rstrip("=").lower()


def _guest(size: str) -> dict[str, Any]:
    """@raise ConfigurationError: there are no machines of this size."""
    name, _, memory = size.partition(":")
    try:
        return Vm.model_validate({"size": name, "memory": memory}).guest()
    except ValueError as error:  # pydantic's own tells of each field
        text = str(error).splitlines()[-1 if isinstance(error, ValidationError) else 0].strip()
        raise ConfigurationError(f"MATRIX_FLY_SIZES: {size}: {text}") from None


def _digest(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
