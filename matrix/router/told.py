"""What machines are told at boot: who they are, where we are, and where their snapshots go."""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass

from twisted.logger import Logger

from matrix.auth import MachineSecrets
from matrix.errors import ConfigurationError
from matrix.model import Machine
from matrix.settings import Settings
from matrix.snapshots import EmbeddedSeaweed

RESTIC = "restic"
"""The program that takes snapshots. Machines of our own host take the host's."""
REPOSITORIES = "/restic"
"""The path below which repositories are served."""

_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- looked for, not listened on

_log = Logger()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all machines of a router have around them."""

    url: str | None = None
    """Where they reach the internal listener, without a slash at the end."""
    snapshots: bool = False
    """Whether they have repositories there."""


def surroundings(settings: Settings) -> Surroundings:
    """Those of settings that were L{settled}."""
    return Surroundings(settings.machine_url, settings.snapshots)


def settled(settings: Settings, internal: socket.socket) -> Settings:
    """
    The settings as they turn out here, and in each worker: C{machine_url} is set, and
    C{snapshots} says whether there are any. What is missing for them is logged, once.

    @param internal: the internal listener.
    """
    found: dict[str, object] = {}
    if settings.machine_url is None:
        host, port = internal.getsockname()[:2]
        if host in _ANY_ADDRESS and settings.provider != "local":
            _log.warn(
                "MATRIX_INTERNAL listens on every address, which tells machines nothing: set "
                "MATRIX_MACHINE_URL to where they reach it"
            )
        shown = f"[{host}]" if ":" in host else host
        found["machine_url"] = f"http://{shown}:{port}"
    else:
        found["machine_url"] = settings.machine_url.rstrip("/")
    missing = lacking(settings)
    if missing:
        _log.warn("there will be no snapshots: {missing}", missing=missing)
    found["snapshots"] = missing is None
    return settings.model_copy(update=found)


def lacking(settings: Settings) -> str | None:
    """
    What is missing for there to be snapshots; empty if nobody wants any, C{None} if nothing is.
    """
    if not settings.snapshots or (settings.s3_endpoint is None and not settings.embedded):
        return ""
    if settings.provider == "local" and shutil.which(RESTIC) is None:
        return "machines here need restic: install it (Debian: apt install restic)"
    if settings.s3_endpoint is None:
        try:
            EmbeddedSeaweed.check()
        except ConfigurationError as error:
            return str(error)
    return None


def environment(secrets: MachineSecrets, around: Surroundings, machine: Machine) -> dict[str, str]:
    """
    What one machine is told, the same at each of its boots.

    The repository's password is not its epoch's: it has to open what earlier ones closed.
    """
    user_id, epoch = machine.user_id, machine.secret_epoch
    told = {
        "MATRIX_USER": user_id,
        "MATRIX_MACHINE_TOKEN": secrets.router_to_daemon(user_id, epoch),
    }
    if around.url is None:
        return told
    told["MATRIX_ROUTER_URL"] = around.url
    told["MATRIX_ROUTER_TOKEN"] = secrets.machine_to_router(user_id, epoch)
    if around.snapshots:
        told["MATRIX_RESTIC_REPOSITORY"] = f"rest:{around.url}{REPOSITORIES}/{user_id}/"
        told["MATRIX_RESTIC_ACCOUNT"] = secrets.restic_account(user_id, epoch)
        told["MATRIX_RESTIC_PASSWORD"] = secrets.restic_password(user_id)
    return told
