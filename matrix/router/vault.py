"""Users' repositories as the box itself gets at them, from its settings alone. Blocks."""

from __future__ import annotations

from dataclasses import replace

from matrix.auth import MachineSecrets
from matrix.errors import ConfigurationError
from matrix.model import UserId
from matrix.router.archive import place_from
from matrix.router.embedded import MASTER_FILE
from matrix.settings import Settings
from matrix.snapshots import Desk, EmbeddedSeaweed, S3Place, Shape, Shelf


def open_shelf(settings: Settings, user_id: UserId) -> Shelf:
    """
    A user's snapshots, for whoever runs this box; Matrix itself need not run, but its store must.

    @raise ConfigurationError: the settings do not say where the store is, or how to open it.
    """
    place = place_from(settings)
    if place is None:
        if not settings.embedded:
            raise ConfigurationError("snapshots are off: MATRIX_S3_ENDPOINT is not set")
        place = EmbeddedSeaweed.find(settings.state_dir / "s3")
    desk = Desk(keeping_place(settings, place), Shape().prefix)
    return Shelf(desk, user_id, MachineSecrets(_master(settings)).restic_password(user_id))


def keeping_place(settings: Settings, place: S3Place) -> S3Place:
    """The store with the key that may delete, if there is one of its own for that."""
    if settings.s3_keeping_secret_key is None:
        return place
    return replace(
        place,
        access_key=settings.s3_keeping_access_key,
        secret_key=settings.s3_keeping_secret_key.get_secret_value(),
    )


def _master(settings: Settings) -> str:
    if settings.daemon_token is not None:
        return settings.daemon_token.get_secret_value()
    if not settings.embedded:
        raise ConfigurationError("MATRIX_DAEMON_TOKEN is not set: repositories open with it alone")
    path = settings.state_dir / MASTER_FILE
    try:
        return path.read_text("ascii").strip()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}: run this as the user that runs Matrix"
        ) from None
