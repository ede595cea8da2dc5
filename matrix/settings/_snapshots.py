"""The settings of snapshots: where they are kept, when they are taken, which are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from matrix.settings._checks import Seconds, Url, checked_duration, checked_hours, hours


class SnapshotSettings(BaseSettings):
    """What becomes of users' data."""

    snapshots: bool = Field(
        default=True,
        description="Whether repositories for snapshots are served: from MATRIX_S3_ENDPOINT, or in "
        "embedded mode from an S3 server of its own.",
    )
    s3_endpoint: Url | None = Field(
        default=None,
        description="The S3 store of snapshots (MinIO), as https://HOST[:PORT] without a path.",
    )
    s3_bucket: str = Field(
        default="matrix-snapshots", description="Its bucket; made if it is not there."
    )
    s3_region: str = Field(default="us-east-1", description="Its region.")
    s3_access_key: str = Field(default="", description="The key to the bucket: its public part.")
    s3_secret_key: SecretStr | None = Field(default=None, description="Its secret part.")
    s3_ca: Path | None = Field(
        default=None,
        description="PEM file of who signs the store's certificate. Default: the system's.",
    )
    snapshot_quota: int = Field(
        default=0, ge=0, description="Bytes that one user's repository may hold: 507. 0: no limit."
    )
    snapshot_undelete: int = Field(
        default=14,
        ge=1,
        description="Days for which the bucket keeps what was deleted from a repository.",
    )
    snapshot_interval: Seconds = Field(
        default=300.0,
        description="Seconds between two snapshots of a machine that is in use.",
    )
    snapshot_at_once: int = Field(
        default=4, ge=1, description="Snapshots that one process of the router has taken at a time."
    )
    snapshot_budget: Seconds = Field(
        default=120.0,
        description="Seconds that a machine which is to sleep may take for its snapshot before. "
        "It sleeps all the same after that, and the snapshot is taken when it wakes.",
    )
    keep_hourly: Annotated[str, AfterValidator(checked_duration)] = Field(
        default="2d",
        description="For how long the last snapshot of each hour is kept, as 2d, 30d, 6m or 1y.",
    )
    keep_daily: Annotated[str, AfterValidator(checked_duration)] = Field(
        default="30d", description="For how long the last one of each day."
    )
    keep_weekly: Annotated[str, AfterValidator(checked_duration)] = Field(
        default="1y", description="For how long the last one of each week."
    )
    keeping_hours: Annotated[str, AfterValidator(checked_hours)] = Field(
        default="1-5",
        description="The hours of the day (UTC) within which repositories are thinned out, "
        "checked and tried, as 1-5 or 22-4; 0-24 for all day; off for never.",
    )
    scrub_days: int = Field(
        default=7, ge=1, description="Days within which every repository is read and checked once."
    )
    drill_days: int = Field(
        default=1,
        ge=1,
        description="Days between two drills: some user's newest snapshot is restored and looked "
        "at.",
    )
    delete_grace: Seconds = Field(
        default=30 * 86400.0,
        description="Seconds between the deletion of a user and that of their snapshots.",
    )
    s3_keeping_access_key: str = Field(
        default="",
        description="The key that may delete from the bucket, for thinning out and for deleted "
        "users: its public part. Default: MATRIX_S3_ACCESS_KEY.",
    )
    s3_keeping_secret_key: SecretStr | None = Field(default=None, description="Its secret part.")

    @model_validator(mode="after")
    def _store_has_its_key(self) -> SnapshotSettings:
        if self.s3_endpoint and not (self.s3_access_key and self.s3_secret_key):
            raise ValueError("MATRIX_S3_ENDPOINT needs MATRIX_S3_ACCESS_KEY, MATRIX_S3_SECRET_KEY")
        if bool(self.s3_keeping_access_key) != bool(self.s3_keeping_secret_key):
            raise ValueError(
                "MATRIX_S3_KEEPING_ACCESS_KEY and MATRIX_S3_KEEPING_SECRET_KEY are set together or "
                "not at all"
            )
        return self

    @property
    def keeping_window(self) -> tuple[int, int] | None:
        """C{keeping_hours}, taken apart: from and to; C{None}: never."""
        return hours(self.keeping_hours)
