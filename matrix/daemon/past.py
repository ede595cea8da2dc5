"""Looking into snapshots: which there are, what is in one, and a single file of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matrix.daemon.faults import explain
from matrix.daemon.paths import Parts
from matrix.daemon.restic import Ran, Restic
from matrix.daemon.volume import COPIES
from matrix.errors import BadRequest, Conflict, NotFound, Unavailable

ENTRIES = 5000
"""Of one folder, at most: some MB of JSON. Who has more of them names a folder below."""

SOON = 5.0
"""Seconds after which a repository that could not be read may be."""

_ID = re.compile(r"[0-9a-f]{8,64}")
_KINDS = {"dir": "directory", "symlink": "link"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What is at one place in a snapshot."""

    name: bytes
    kind: str
    """C{file}, C{directory}, C{link} or what else restic calls it."""
    size: int
    mtime: str
    """As restic writes it: RFC 3339."""


class Past:
    """
    The snapshots of one machine. Every method blocks, for half a second or more: restic works
    out the repository's key each time.

    Copies of databases show in the places that they are copies of.
    """

    def __init__(self, restic: Restic) -> None:
        self._restic = restic

    def snapshots(self) -> list[dict[str, Any]]:
        """
        All of them, the newest first.

        @raise Unavailable: the repository cannot be read now.
        """
        ran, said = self._restic.collect("snapshots", "--json", "--no-lock")
        if ran.code and explain(ran.code, ran.complaint).no_repository:
            return []
        found = json.loads(_checked(ran, said) or b"null") or []
        told = [
            {"id": each["id"], "time": each["time"], "tags": each.get("tags") or []}
            for each in found
        ]
        return sorted(told, key=lambda each: str(each["time"]), reverse=True)

    def folder(self, snapshot: str, parts: Parts) -> tuple[list[Seen], bool]:
        """
        What a folder holds, in the order of names; whether that is all.

        @raise NotFound: there is no such snapshot, or no such folder in it.
        """
        found: dict[bytes, Seen] = {}
        complete = True
        for path, seen in self._listed(snapshot, parts):
            if path == (os.fsencode(COPIES),) or seen.name in found:
                continue  # What holds the copies; or a folder that both hold.
            if len(found) < ENTRIES:
                found[seen.name] = seen
            else:
                complete = False
        return sorted(found.values(), key=lambda seen: seen.name), complete

    def _listed(self, snapshot: str, parts: Parts) -> Iterator[tuple[Parts, Seen]]:
        """Everything right below a folder, and below the folder of its copies."""
        wanted = {parts, (os.fsencode(COPIES), *parts)}
        places = [_place(each) for each in sorted(wanted)]
        there = not parts
        found: list[tuple[Parts, Seen]] = []

        def said(line: dict[str, Any]) -> None:
            nonlocal there
            if line.get("struct_type") != "node":
                return
            path = tuple(os.fsencode(line["path"]).split(b"/")[1:])
            if path == parts:
                there = line["type"] == "dir"
            elif path[:-1] in wanted:
                found.append((path, _seen(line)))

        ran = self._restic.run("ls", "--json", "--no-lock", _id(snapshot), *places, said=said)
        _checked(ran)
        if not there and not found:
            raise NotFound("there is no such folder in that snapshot", reason="path")
        yield from found

    def find(self, snapshot: str, parts: Parts) -> tuple[Seen, str]:
        """
        What is at a place, and what restic calls it.

        @raise NotFound: nothing is.
        @raise Conflict: it is no file.
        """
        if not parts:
            raise BadRequest("path: name a file", reason="path")
        for path, seen in self._listed(snapshot, parts[:-1]):
            if path[-1] != parts[-1]:
                continue
            if seen.kind != "file":
                raise Conflict(f"that is a {seen.kind}, not a file: name a file", reason="kind")
            return seen, _place(path)
        raise NotFound("there is no such file in that snapshot", reason="path")

    def pour(self, snapshot: str, place: str, into: Callable[[Sequence[bytes]], None]) -> None:
        """
        A file's content, in pieces.

        @raise Unavailable: it cannot be read now; what came so far is not all.
        """
        _checked(self._restic.pour("dump", "--no-lock", _id(snapshot), place, into=into))


def _seen(line: dict[str, Any]) -> Seen:
    kind = str(line["type"])
    return Seen(
        os.fsencode(line["name"]),
        _KINDS.get(kind, kind),
        int(line.get("size", 0)),
        str(line.get("mtime", "")),
    )


def _place(parts: Parts) -> str:
    return "/" + "/".join(map(os.fsdecode, parts))


def _id(snapshot: str) -> str:
    if not _ID.fullmatch(snapshot):
        raise BadRequest("snapshot: write its id, 8 to 64 hexadecimal digits", reason="field")
    return snapshot


def _checked(ran: Ran, said: bytes = b"") -> bytes:
    if ran.code == 0:
        return said
    if "no matching ID found" in ran.complaint or "not found in snapshot" in ran.complaint:
        raise NotFound("there is no such snapshot, or nothing there in it", reason="snapshot")
    fault = explain(ran.code, ran.complaint)
    raise Unavailable(f"the snapshots cannot be read now: {fault.reason}", retry_after=SOON)
