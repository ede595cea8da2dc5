"""C{/v1/files}: the workspace over HTTP."""

from __future__ import annotations

import mimetypes
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qs, urlencode

from matrix.api import Api, read_json, send_json
from matrix.daemon import conditions
from matrix.daemon.conditions import Version
from matrix.daemon.paths import Parts, href, parse_text, parse_url, text_of
from matrix.daemon.transfer import Upload, download
from matrix.daemon.tree import Entry
from matrix.daemon.workspace import OpenFile, Workspace
from matrix.errors import BadRequest, Conflict
from matrix.http.interfaces import Exchange, HeaderList, Request

PREFIX = "/v1/files/"

PAGE = 1000
"""Entries in a page of a listing, at most: 200 KB of JSON, some 5 ms of the event loop."""

# Only the library's own table: the system's differs from machine to machine.
_types = mimetypes.MimeTypes(filenames=())

GUARDED = (
    (b"cache-control", b"private, no-cache"),
    (b"x-content-type-options", b"nosniff"),
    # A page or an SVG among the files must not act as a page of the daemon.
    (
        b"content-security-policy",
        b"sandbox; default-src 'none'; style-src 'unsafe-inline'; "
        b"img-src 'self' data:; media-src 'self'",
    ),
)
"""Fields of every answer with a user's file."""


class Files:
    """The handlers of C{/v1/files}, on a workspace."""

    def __init__(self, workspace: Workspace, clock: Callable[[], float] = time.time) -> None:
        """
        @param clock: unix seconds.
        """
        self._workspace = workspace
        self._clock = clock

    def register(self, api: Api) -> None:
        """Add the routes."""
        for rule in (PREFIX.rstrip("/"), PREFIX + "<raw:path>"):
            api.add("GET", rule, self.get)
            api.add("PUT", rule, self.put)
            api.add("POST", rule, self.post)
            api.add("DELETE", rule, self.delete)

    async def get(self, exchange: Exchange, path: str = "") -> None:
        """A file's content, or a folder's listing."""
        parts = parse_url(path)
        found = await self._workspace.open(parts)
        if isinstance(found, Entry):
            await self._list(exchange, parts)
            return
        try:
            await self._send(exchange, found)
        finally:
            self._workspace.release(found.close)

    async def put(self, exchange: Exchange, path: str = "") -> None:
        """Make a file, or replace it, once its whole content has come."""
        request, parts = exchange.request, _inside(parse_url(path))
        for unusable in (b"content-range", b"content-encoding"):
            if request.get(unusable) is not None:
                name = unusable.decode()
                raise BadRequest(f"{name}: send the whole file, as it is", reason=name)
        check = partial(conditions.check_change, request)
        length = request.get(b"content-length")
        workspace = self._workspace
        staged = await workspace.stage(parts, int(length) if length else None, check)
        try:
            upload = Upload(exchange, partial(workspace.in_thread, staged.write))
            exchange.receive(upload)
            await upload.done
            entry, new = await workspace.commit(staged, parts, check)
        finally:
            workspace.release(staged.close)
        _changed(exchange, parts, entry, new)

    async def post(self, exchange: Exchange, path: str = "") -> None:
        """Make a folder, or move something."""
        parts = _inside(parse_url(path))
        match await read_json(exchange):
            case {"op": "mkdir"}:
                conditions.check_change(exchange.request, None)
                _changed(exchange, parts, await self._workspace.make_folder(parts), True)
            case {"op": "move", "to": str(to), **options}:
                target = _inside(parse_text(to))
                overwrite = options.get("overwrite", False)
                if not isinstance(overwrite, bool):
                    raise BadRequest("overwrite: write true or false", reason="field")
                check = partial(conditions.check_change, exchange.request)
                entry, new = await self._workspace.move(parts, target, overwrite, check)
                _changed(exchange, target, entry, new)
            case {"op": "move"}:
                raise BadRequest("to: write the new path, as text", reason="field")
            case _:
                raise BadRequest('op: write {"op":"mkdir"} or {"op":"move"}', reason="field")

    async def delete(self, exchange: Exchange, path: str = "") -> None:
        """Delete a file, a link, or a folder."""
        parts = _inside(parse_url(path))
        recursive = query_of(exchange.request).get("recursive", "false")
        if recursive not in ("true", "false"):
            raise BadRequest("recursive: write true or false", reason="field")
        check = partial(conditions.check_change, exchange.request)
        await self._workspace.delete(parts, recursive == "true", check)
        exchange.respond(204)

    async def _send(self, exchange: Exchange, file: OpenFile) -> None:
        request, entry = exchange.request, file.entry
        version = entry.version
        validators = _validators(version)
        if conditions.is_unmodified(request, version):
            exchange.respond(304, [*validators, GUARDED[0]])
            return
        headers = [
            (b"content-type", type_of(entry.name)),
            (b"accept-ranges", b"bytes"),
            *validators,
            *GUARDED,
        ]
        wanted = conditions.wanted_range(request, version, entry.size, self._clock())
        if wanted is None:
            wanted, status = range(entry.size), 200
        else:
            status = 206
            span = (wanted.start, wanted.stop - 1, entry.size)
            headers.append((b"content-range", b"bytes %d-%d/%d" % span))
        exchange.begin(status, headers, len(wanted))
        if request.method == b"HEAD" or not wanted:
            exchange.end()
            return
        await download(exchange, wanted, partial(self._workspace.in_thread, file.read))

    async def _list(self, exchange: Exchange, parts: Parts) -> None:
        query = query_of(exchange.request)
        limit = _limit(query.get("limit"))
        after = query.get("after", "")
        entries, last = await self._workspace.list(parts, after.encode("latin-1"), limit)
        listing: dict[str, Any] = {
            "path": text_of(parts),
            "entries": [_shown(parts, entry) for entry in entries],
            "next": None,
        }
        if last is not None:
            rest = urlencode({"after": last, "limit": limit})
            listing["next"] = f"{PREFIX}{href(parts)}?{rest}"
        digest = blake2b(repr(listing).encode("utf-8", "replace"), digest_size=12).hexdigest()
        etag = (b"etag", b'"%b"' % digest.encode())
        if conditions.is_unmodified(exchange.request, Version(etag[1], int(self._clock()))):
            exchange.respond(304, [etag, GUARDED[0]])
        else:
            send_json(exchange, listing, headers=[etag, GUARDED[0]])


def _inside(parts: Parts) -> Parts:
    if not parts:
        raise Conflict("that is the workspace itself: name something in it", reason="workspace")
    return parts


def _changed(exchange: Exchange, parts: Parts, entry: Entry, new: bool) -> None:
    headers = _validators(entry.version)
    if new:
        exchange.respond(201, [(b"location", (PREFIX + href(parts)).encode()), *headers])
    else:
        exchange.respond(204, headers)


def _validators(version: Version) -> HeaderList:
    return [
        (b"etag", version.etag),
        (b"last-modified", conditions.http_date(version.modified)),
    ]


def _shown(folder: Parts, entry: Entry) -> dict[str, Any]:
    modified = datetime.fromtimestamp(entry.modified, UTC)
    return {
        "name": text_of((entry.name,)),
        "kind": entry.kind,
        "size": entry.size if entry.kind == "file" else None,
        "mtime": modified.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "etag": entry.version.etag.decode(),
        "href": PREFIX + href((*folder, entry.name)),
    }


def type_of(name: bytes) -> bytes:
    """The media type that a file's name stands for."""
    kind, encoding = _types.guess_type(text_of((name,)).rpartition("/")[2])
    if kind is None or encoding is not None:
        return b"application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    return (kind + charset).encode()


def query_of(request: Request) -> dict[str, str]:
    """The query's last value for each name; bytes as Latin-1, as names need not be UTF-8."""
    text = request.query.decode("latin-1")
    return {k: v[-1] for k, v in parse_qs(text, True, encoding="latin-1").items()}


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= PAGE):
        raise BadRequest(f"limit: write a number from 1 to {PAGE}", reason="field")
    return int(text)
