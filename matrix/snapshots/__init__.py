"""Repositories of snapshots: restic's REST protocol towards machines, objects in S3 behind it."""

from matrix.snapshots._admission import MachineAdmission
from matrix.snapshots._bucket import Keeping
from matrix.snapshots._drill import Drilled, sweep_drills
from matrix.snapshots._memory import MemoryStore
from matrix.snapshots._s3 import S3Store
from matrix.snapshots._s3_wire import S3Place
from matrix.snapshots.embedded import EmbeddedSeaweed
from matrix.snapshots.interfaces import Access, Admission, IObjectStore, StoreUnavailable
from matrix.snapshots.keeper import Damaged, Keeper
from matrix.snapshots.policy import bucket_policy
from matrix.snapshots.repository import Repositories, Shape
from matrix.snapshots.restic import Desk, RepositoryBusy, Restic, ResticFailed, find_restic
from matrix.snapshots.retention import Rules, span
from matrix.snapshots.schedule import Schedule
from matrix.snapshots.shelf import Dated, NoSuchSnapshot, Shelf, choose

__all__ = [
    "Access",
    "Admission",
    "Damaged",
    "Dated",
    "Desk",
    "Drilled",
    "EmbeddedSeaweed",
    "IObjectStore",
    "Keeper",
    "Keeping",
    "MachineAdmission",
    "MemoryStore",
    "NoSuchSnapshot",
    "Repositories",
    "RepositoryBusy",
    "Restic",
    "ResticFailed",
    "Rules",
    "S3Place",
    "S3Store",
    "Schedule",
    "Shape",
    "Shelf",
    "StoreUnavailable",
    "bucket_policy",
    "choose",
    "find_restic",
    "span",
    "sweep_drills",
]
