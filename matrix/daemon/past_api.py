"""
Snapshots for people and programs: lists, folders, files, and a file brought back.

C{/v1/snapshots} is the user's, C{/-/snapshots} and C{/-/restore} the router's: the same answers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from twisted.internet.defer import Deferred

from matrix.api import Api, read_json, send_json
from matrix.daemon.conditions import Version
from matrix.daemon.files import GUARDED, query_of, type_of
from matrix.daemon.past import Past, Seen
from matrix.daemon.paths import Parts, parse_text, text_of
from matrix.daemon.staging import StagedFile
from matrix.daemon.transfer import download
from matrix.daemon.workspace import Workspace
from matrix.errors import BadRequest, Conflict, InternalError, Unsupported
from matrix.http.interfaces import Exchange

PLACES = ("/v1/snapshots", "/-/snapshots")
RESTORES = ("/v1/snapshots/restore", "/-/restore")

_WORKSPACE = b"workspace"


def refuse(api: Api, missing: str) -> None:
    """Answer each of the routes with what is missing, in one sentence."""

    async def answer(exchange: Exchange, **_: str) -> None:
        raise Unsupported(missing, reason="snapshots")

    _add(api, answer, answer, answer, answer)


class PastApi:
    """The handlers, on the snapshots and the workspace of one machine."""

    def __init__(
        self, past: Past, workspace: Workspace, in_thread: Callable[..., Deferred[Any]]
    ) -> None:
        """
        @param in_thread: calls what waits for restic.
        """
        self._past = past
        self._workspace = workspace
        self._in_thread = in_thread

    def register(self, api: Api) -> None:
        """Add the routes."""
        _add(api, self.list, self.folder, self.file, self.restore)

    async def list(self, exchange: Exchange) -> None:
        """Which snapshots there are."""
        send_json(exchange, {"snapshots": await self._in_thread(self._past.snapshots)})

    async def folder(self, exchange: Exchange, snapshot: str) -> None:
        """What a folder of a snapshot holds."""
        parts = _asked(exchange)
        seen, complete = await self._in_thread(self._past.folder, snapshot, parts)
        send_json(
            exchange,
            {
                "path": text_of(parts),
                "entries": [_shown(snapshot, parts, each) for each in seen],
                "complete": complete,
            },
        )

    async def file(self, exchange: Exchange, snapshot: str) -> None:
        """A file as it was."""
        seen, place = await self._in_thread(self._past.find, snapshot, _asked(exchange))
        staged = await self._workspace.scratch(seen.size)
        try:
            await self._fill(staged, snapshot, seen, place)
            name = quote(seen.name, safe="").encode()
            headers = [
                (b"content-type", type_of(seen.name)),
                (b"content-disposition", b"attachment; filename*=UTF-8''" + name),
                *GUARDED,
            ]
            exchange.begin(200, headers, seen.size)
            if exchange.request.method == b"HEAD" or not seen.size:
                exchange.end()
                return
            read = partial(self._workspace.in_thread, staged.read)
            await download(exchange, range(seen.size), read)
        finally:
            self._workspace.release(staged.close)

    async def restore(self, exchange: Exchange) -> None:
        """Put a file into the workspace as it was."""
        snapshot, parts, target, overwrite = _wanted(await read_json(exchange))
        seen, place = await self._in_thread(self._past.find, snapshot, parts)
        await self._make_folders(target[:-1])

        def check(now: Version | None) -> None:
            if now is not None and not overwrite:
                raise Conflict(f"{text_of(target)} is there: overwrite it?", reason="exists")

        staged = await self._workspace.stage(target, seen.size, check)
        try:
            await self._fill(staged, snapshot, seen, place)
            _, new = await self._workspace.commit(staged, target, check)
        finally:
            self._workspace.release(staged.close)
        send_json(exchange, {"path": text_of(target), "bytes": seen.size}, 201 if new else 200)

    async def _fill(self, staged: StagedFile, snapshot: str, seen: Seen, place: str) -> None:
        await self._in_thread(self._past.pour, snapshot, place, staged.write)
        size = staged.stat().st_size
        if size != seen.size:
            raise InternalError(f"restic gave {size} bytes of a file of {seen.size}")

    async def _make_folders(self, parts: Parts) -> None:
        for depth in range(1, len(parts) + 1):
            try:
                await self._workspace.make_folder(parts[:depth])
            except Conflict:
                continue  # It is there; if it is no folder, what comes next says so.


def _add(
    api: Api,
    listing: Callable[..., Any],
    folder: Callable[..., Any],
    file: Callable[..., Any],
    restore: Callable[..., Any],
) -> None:
    for place in PLACES:
        api.add("GET", place, listing)
        api.add("GET", f"{place}/<snapshot>/files", folder)
        api.add("GET", f"{place}/<snapshot>/file", file)
    for place in RESTORES:
        api.add("POST", place, restore)


def _asked(exchange: Exchange) -> Parts:
    text = query_of(exchange.request).get("path", "").strip("/")
    return parse_text(text.encode("latin-1").decode("utf-8", "replace"))


def _shown(snapshot: str, folder: Parts, seen: Seen) -> dict[str, Any]:
    path = text_of((*folder, seen.name))
    kind = "file" if seen.kind == "file" else "files"
    href = f"{PLACES[0]}/{snapshot}/{kind}?{urlencode({'path': path})}"
    return {
        "name": text_of((seen.name,)),
        "path": path,
        "kind": seen.kind,
        "size": seen.size if seen.kind == "file" else None,
        "mtime": seen.mtime,
        "href": href if seen.kind in ("file", "directory") else None,
    }


def _wanted(body: Any) -> tuple[str, Parts, Parts, bool]:
    match body:
        case {"snapshot": str(snapshot), "path": str(path), **rest}:
            to, overwrite = rest.get("to"), rest.get("overwrite", False)
        case _:
            raise BadRequest("write snapshot (its id) and path (in it), as texts", reason="field")
    if not isinstance(overwrite, bool):
        raise BadRequest("overwrite: write true or false", reason="field")
    parts = parse_text(path.strip("/"))
    if to is None:
        if parts[:1] != (_WORKSPACE,) or len(parts) < 2:
            raise BadRequest("to: write where in the workspace it is to be", reason="field")
        return snapshot, parts, parts[1:], overwrite
    if not isinstance(to, str) or not to.strip("/"):
        raise BadRequest("to: write a path in the workspace, as text", reason="field")
    return snapshot, parts, parse_text(to.strip("/")), overwrite
