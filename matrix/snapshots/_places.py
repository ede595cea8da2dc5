"""What the paths of restic's REST protocol name, and where that is kept. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from matrix.errors import NotFound
from matrix.model import UserId


class Kind(StrEnum):
    """The types of files in a repository (restic's C{doc/design.rst})."""

    DATA = "data"
    KEYS = "keys"
    LOCKS = "locks"
    SNAPSHOTS = "snapshots"
    INDEX = "index"


CONFIG = "config"

NAME_LENGTH = 64
"""Files are named by the SHA-256 of their stored bytes, in lower-case hex."""

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PLACE = re.compile(
    rf"/({_UUID})/(?:(config)|({'|'.join(Kind)})/([0-9a-f]{{{NAME_LENGTH}}})?)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Place:
    """What a path names: a repository, its config, a folder of it, or a file in one."""

    user_id: UserId
    kind: Kind | None = None
    name: str = ""

    @property
    def is_config(self) -> bool:
        return self.kind is None and self.name == CONFIG


def parse_path(base: str, path: bytes) -> Place:
    """
    What a path names. It is compared as it was sent: whatever is encoded, doubled or
    spelled in another way names nothing.

    @param base: where the repositories are; no slash at the end.
    @raise NotFound: it names nothing that there could be.
    """
    text = path.decode("latin-1")
    found = _PLACE.fullmatch(text, len(base)) if text.startswith(base) else None
    if found is None:
        raise NotFound("no path of a restic repository (REST protocol, version 2)", reason="path")
    user, config, kind, name = found.groups()
    return Place(UserId(user), Kind(kind) if kind else None, config or name or "")


class Keys:
    """
    Where a user's files are kept.

    The layout is the one that restic itself uses in S3, so that an operator with the
    bucket's key can reach a repository without us.
    """

    def __init__(self, prefix: str, user_id: UserId) -> None:
        """@param prefix: what the keys of all users begin with; ends in a slash."""
        self.root = f"{prefix}{user_id}/"
        self.config = self.root + CONFIG

    def folder(self, kind: Kind) -> str:
        """What the keys of all files of this kind begin with."""
        return f"{self.root}{kind}/"

    def file(self, kind: Kind, name: str) -> str:
        """The key of a file."""
        folder = self.folder(kind)
        return f"{folder}{name[:2]}/{name}" if kind is Kind.DATA else folder + name


def name_of(key: str) -> str | None:
    """The name of the file with this key; C{None} if that is none of restic's."""
    name = key.rpartition("/")[2]
    return name if re.fullmatch(f"[0-9a-f]{{{NAME_LENGTH}}}", name) else None
