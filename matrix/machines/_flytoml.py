"""C{fly.toml}, read strictly: the part of it that says something about one machine. Pure."""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from matrix.errors import ConfigurationError

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h))+")
_SIZE = re.compile(r"([0-9]+)\s*(mb|gb)?", re.IGNORECASE)
_PRESET = re.compile(r"(shared-cpu|performance)-([0-9]{1,2})x")

_MEMORY = {"shared": (256, 2048, 256), "performance": (2048, 8192, 2048)}
"""MB for each CPU: least, most, and what a preset has (facts/fly.md section 3)."""

MEMORY_STEP = 256
"""MB; memory comes in multiples of it."""


def _duration(unit: str) -> BeforeValidator:
    """A Go duration. A plain number has a meaning of its own in each place."""

    def read(value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return f"{value}{unit}"
        if isinstance(value, str) and _DURATION.fullmatch(value):
            return value
        raise ValueError(f'{value!r} is no duration: write "15s" or "1m30s"')

    return BeforeValidator(read)


def _size(unit: str) -> BeforeValidator:
    """A size, as a number of C{unit}s."""

    def read(value: object) -> object:
        found = _SIZE.fullmatch(str(value))
        if isinstance(value, bool) or found is None:
            raise ValueError(f'{value!r} is no size: write "512mb" or "1gb"')
        number, given = int(found[1]), (found[2] or unit).lower()
        if given == unit:
            return number
        if given == "gb":
            return number * 1024
        if number % 1024:
            raise ValueError(f"{value!r} is no whole number of GB")
        return number // 1024

    return BeforeValidator(read)


def _single(what: str) -> BeforeValidator:
    """C{[vm]} and C{[[vm]]} mean the same, if there is one."""

    def read(value: object) -> object:
        if isinstance(value, list) and len(value) != 1:
            raise ValueError(f"a machine has one {what}, not {len(value)}")
        return value[0] if isinstance(value, list) else value

    return BeforeValidator(read)


Seconds = Annotated[str, _duration("s")]
Milliseconds = Annotated[str, _duration("ms")]
Megabytes = Annotated[int, _size("mb")]
Gigabytes = Annotated[int, _size("gb")]
Idle = Literal["off", "stop", "suspend"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mount(_Table):
    """Where a volume is seen, and how it is made."""

    source: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,30}$")]
    destination: Annotated[str, Field(pattern=r"^/")]
    initial_size: Annotated[Gigabytes, Field(ge=1, le=500)] = 1
    snapshot_retention: Annotated[int, Field(ge=1, le=60)] | None = None
    scheduled_snapshots: bool | None = None
    auto_extend_size_threshold: Annotated[int, Field(ge=0, le=100)] | None = None
    auto_extend_size_increment: Gigabytes | None = None
    auto_extend_size_limit: Gigabytes | None = None


class Check(_Table):
    """How the machine's health is looked at."""

    type: Literal["http", "tcp"] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    method: str | None = None
    path: str | None = None
    protocol: Literal["http", "https"] | None = None
    headers: dict[str, str] | None = None
    interval: Milliseconds | None = None
    timeout: Milliseconds | None = None
    grace_period: Milliseconds | None = None


class Concurrency(_Table):
    type: Literal["requests", "connections"] = "connections"
    soft_limit: int | None = None
    hard_limit: int | None = None


class HttpService(_Table):
    """What listens in the machine, and what becomes of it when nobody uses it."""

    internal_port: Annotated[int, Field(ge=1, le=65535)]
    force_https: bool = False
    auto_stop_machines: Annotated[
        Idle, BeforeValidator(lambda value: {True: "stop", False: "off"}.get(value, value))
    ] = "off"
    auto_start_machines: Literal[False] = False
    min_machines_running: Literal[0] = 0
    concurrency: Concurrency | None = None
    checks: tuple[Check, ...] = ()


class Vm(_Table):
    """How large the machine is."""

    size: str | None = None
    memory: Megabytes | None = None
    cpus: Annotated[int, Field(ge=1, le=16)] | None = None
    cpu_kind: Literal["shared", "performance"] | None = None

    def guest(self) -> dict[str, Any]:
        """
        The machine's C{guest}.

        @raise ValueError: there is no such machine.
        """
        kind: str = self.cpu_kind or "shared"
        cpus = self.cpus or 1
        if self.size is not None:
            preset = _PRESET.fullmatch(self.size)
            if preset is None:
                raise ValueError(f"there is no size {self.size!r}: write shared-cpu-1x")
            kind = self.cpu_kind or preset[1].removesuffix("-cpu")
            cpus = self.cpus or int(preset[2])
        least, most, usual = _MEMORY[kind]
        memory = self.memory or usual * cpus
        if memory % MEMORY_STEP or not least * cpus <= memory <= most * cpus:
            raise ValueError(
                f"{cpus} {kind} CPUs have {least * cpus} to {most * cpus} MB of memory, "
                f"in steps of {MEMORY_STEP}, not {memory}"
            )
        return {"cpu_kind": kind, "cpus": cpus, "memory_mb": memory}


class Restart(_Table):
    policy: Literal["never", "no", "always", "on-failure"] = "on-failure"
    retries: Annotated[int, Field(ge=0)] | None = None


class Build(_Table):
    image: str


class FlyToml(_Table):
    """The file as a whole. What is not known here would be lost in silence, so it is refused."""

    app: Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
    primary_region: Annotated[str, Field(pattern=r"^[a-z]{3}$")]
    build: Build
    kill_signal: Literal[
        "SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM"
    ] = "SIGTERM"
    kill_timeout: Seconds = "30s"
    swap_size_mb: Annotated[int, Field(ge=0)] | None = None
    env: dict[str, str] = {}
    mounts: Annotated[Mount, _single("volume")]
    http_service: HttpService
    checks: dict[str, Check] = {}
    vm: Annotated[Vm, _single("size")]
    restart: Annotated[Restart, _single("restart policy")] = Restart()

    @model_validator(mode="after")
    def _there_is_such_a_machine(self) -> FlyToml:
        self.vm.guest()
        return self


def read(text: str, source: str) -> FlyToml:
    """
    @param source: where the text comes from, for errors.
    @raise ConfigurationError: it is no TOML, or says what is not understood; names the place.
    """
    try:
        return FlyToml.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source}: {error}") from None
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_input=False, include_url=False):
            place = ".".join(map(str, problem["loc"]))
            reason = problem.get("ctx", {}).get("error")
            said = str(reason) if isinstance(reason, ValueError) else problem["msg"]
            problems.append(f"{place}: {said}" if place else said)
        raise ConfigurationError(f"{source}: {'; '.join(problems)}") from None
