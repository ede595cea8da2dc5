"""restic's REST protocol, version 2: one append-only repository for each user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from matrix.errors import BadRequest, Forbidden, MethodNotAllowed, NotFound, Unavailable
from matrix.http.interfaces import Exchange
from matrix.snapshots._heads import (
    V2,
    announced_length,
    list_version,
    partial,
    wanted_span,
    wants_creation,
)
from matrix.snapshots._places import Keys, Kind, Place, name_of, parse_path
from matrix.snapshots._quota import ROOM_FOR_LOCKS, Quotas
from matrix.snapshots._streaming import Pace, receive, send
from matrix.snapshots._turns import Turns
from matrix.snapshots.interfaces import (
    Access,
    Admission,
    AlreadyThere,
    IObjectStore,
    Stored,
    StoreUnavailable,
)

SMALL_BYTES = 64 * 1024
"""For a config or a lock: restic's have some hundred bytes."""

BINARY = (b"content-type", b"application/octet-stream")

_log = Logger()


@dataclass(frozen=True, slots=True)
class Shape:
    """Where repositories are, and how large things in them may become."""

    base: str = "/restic"
    """The path that they are below; no slash at its end."""
    prefix: str = "users/"
    """What their keys in the store begin with; ends in a slash."""
    file_bytes: int = 256 << 20
    """restic's packs have 16 MiB, at most 128 MiB and a tail."""
    quota: int | None = None
    """Bytes that one repository may hold; C{None} for no limit."""


@dataclass(frozen=True, slots=True)
class _Visit:
    """One request to a place that its sender may touch."""

    exchange: Exchange
    access: Access
    place: Place
    keys: Keys

    @property
    def key(self) -> str:
        """Where the file is that the request names."""
        if self.place.kind is None:
            return self.keys.config
        return self.keys.file(self.place.kind, self.place.name)


_Answering = Callable[[_Visit], Coroutine[Any, Any, None]]


class Repositories:
    """
    A handler of requests (L{matrix.http.interfaces.Handler}).

    It deviates from C{rest-server} where that one would lose a backup: a file that is there
    already and comes again whole is answered 200 (its name is its hash, so it is the same);
    what is on its way is in no listing; and trouble is 503, never 401 or 404, for restic
    takes those as the last word.
    """

    def __init__(
        self, store: IObjectStore, admission: Admission, clock: IReactorTime, shape: Shape
    ) -> None:
        self._store = store
        self._admission = admission
        self._shape = shape
        self._turns = Turns()
        self._quotas = Quotas(store, shape.quota, clock)
        self._well = True
        self._root: dict[bytes, _Answering] = {b"POST": self._create}
        self._folder: dict[bytes, _Answering] = {b"GET": self._list}
        self._config: dict[bytes, _Answering] = {
            b"GET": self._load,
            b"HEAD": self._stat,
            b"POST": self._save_config,
            b"DELETE": self._delete,
        }
        self._file = self._config | {b"POST": self._save}

    @property
    def well(self) -> bool:
        """Whether the store did what it should when it was last asked."""
        return self._well

    def __call__(self, exchange: Exchange) -> None:
        """See L{matrix.http.interfaces.Handler}."""
        exchange.spawn(self._serve(exchange))

    async def _serve(self, exchange: Exchange) -> None:
        request = exchange.request
        access = await self._admission.admit(request)
        place = parse_path(self._shape.base, request.path)
        if place.user_id != access.user_id:
            raise Forbidden("this is not your repository", reason="owner")
        answering = self._table(place).get(request.method)
        if answering is None:
            allowed = b", ".join(sorted(self._table(place)))
            raise MethodNotAllowed(
                f"possible here: {allowed.decode()}", headers=[(b"allow", allowed)]
            )
        # The keys follow from who was let in, not from what was asked for.
        visit = _Visit(exchange, access, place, Keys(self._shape.prefix, access.user_id))
        try:
            await answering(visit)
        except StoreUnavailable as error:
            self._note_trouble(error)
            raise
        self._note_health()

    def _table(self, place: Place) -> dict[bytes, _Answering]:
        if place.is_config:
            return self._config
        if place.name:
            return self._file
        return self._root if place.kind is None else self._folder

    # whole repositories and folders

    async def _create(self, visit: _Visit) -> None:
        """Nothing needs to be made; but restic must not go on if we are not well."""
        wants_creation(visit.exchange.request)
        await self._store.size(visit.keys.config)
        visit.exchange.respond(200)

    async def _list(self, visit: _Visit) -> None:
        assert visit.place.kind is not None
        exchange, form = visit.exchange, list_version(visit.exchange.request)
        async with self._turns.turn(visit.access.user_id):
            lines = _lines(self._store.list(visit.keys.folder(visit.place.kind)), form)
            # Trouble with the first page is still told as such; later, the answer breaks off.
            line = await anext(lines)
            exchange.begin(200, [(b"content-type", form)])
            pace = Pace(exchange)
            exchange.write(line)
            async for line in lines:
                await pace.kept()
                exchange.write(line)
            exchange.end()

    # files

    async def _stat(self, visit: _Visit) -> None:
        size = await self._store.size(visit.key)
        if size is None:
            raise NotFound("there is no such file", reason="file")
        visit.exchange.begin(200, [BINARY, (b"accept-ranges", b"bytes")], size)
        visit.exchange.end()

    async def _load(self, visit: _Visit) -> None:
        exchange = visit.exchange
        span = None if visit.place.is_config else wanted_span(exchange.request)
        async with self._turns.turn(visit.access.user_id):
            reading = await self._store.read(visit.key, span)
            try:
                headers = [BINARY, (b"accept-ranges", b"bytes")]
                if span is None or not reading.size:
                    exchange.begin(200, headers, reading.size)
                else:
                    headers += partial(reading.size, reading.wanted)
                    exchange.begin(206, headers, len(reading.wanted))
                await send(exchange, reading)
            finally:
                reading.close()

    async def _save(self, visit: _Visit) -> None:
        kind, request = visit.place.kind, visit.exchange.request
        is_lock = kind is Kind.LOCKS
        length = announced_length(request, SMALL_BYTES if is_lock else self._shape.file_bytes)
        async with self._turns.turn(visit.access.user_id):
            present = await self._store.size(visit.key)
            if present == length:
                await self._compare(visit, length)
            else:
                if present is not None:
                    _log.error(
                        "snapshots.damaged: {key} had {present} bytes, its repair has {length}",
                        key=visit.key,
                        present=present,
                        length=length,
                    )
                extra = ROOM_FOR_LOCKS if is_lock else 0
                async with self._quotas.reserved(visit.keys.root, length, extra):
                    await self._store_file(visit, length, replace=present is not None)
        visit.exchange.respond(200)

    async def _compare(self, visit: _Visit, length: int) -> None:
        """The file is there: what comes must be the same, and is not stored again."""
        checking = self._store.check(length, visit.place.name)
        try:
            await receive(visit.exchange, checking)
            await checking.commit()
        finally:
            checking.abort()

    async def _store_file(self, visit: _Visit, length: int, replace: bool) -> None:
        writing = await self._store.write(visit.key, length, visit.place.name, replace)
        try:
            try:
                await receive(visit.exchange, writing)
            except AlreadyThere:
                raise Unavailable(
                    "another upload of this file was faster; try again", reason="race"
                ) from None
            try:
                await writing.commit()
            except AlreadyThere:
                return  # as good: all our bytes were right, so the other's are the same
        finally:
            writing.abort()

    async def _save_config(self, visit: _Visit) -> None:
        body = await visit.exchange.read_body(SMALL_BYTES)
        if not body:
            raise BadRequest("an empty config would make the repository useless", reason="config")
        is_new = await self._store.size(visit.key) is None and await self._place_config(visit, body)
        if not is_new and await self._content(visit.key) != body:
            raise Forbidden("there is a config, and it stays", reason="config")
        visit.exchange.respond(200)

    async def _place_config(self, visit: _Visit, body: bytes) -> bool:
        """Store a config; whether there was none meanwhile."""
        writing = await self._store.write(visit.key, len(body))
        try:
            await writing.write([body])
            await writing.commit()
        except AlreadyThere:
            return False
        finally:
            writing.abort()
        return True

    async def _content(self, key: str) -> bytes:
        """All of a small file; no more than a little of a larger one."""
        reading = await self._store.read(key)
        try:
            parts = []
            while chunk := await reading.read(SMALL_BYTES):
                parts.append(chunk)
                if reading.size > SMALL_BYTES:
                    break
            return b"".join(parts)
        finally:
            reading.close()

    async def _delete(self, visit: _Visit) -> None:
        if not visit.access.full and visit.place.kind is not Kind.LOCKS:
            raise Forbidden("this repository can only be added to", reason="append-only")
        await self._store.delete(visit.key)
        visit.exchange.respond(200)

    def _note_trouble(self, error: StoreUnavailable) -> None:
        if self._well:
            self._well = False
            _log.error("snapshots.store-trouble: {error}", error=error.detail)

    def _note_health(self) -> None:
        if not self._well:
            self._well = True
            _log.info("snapshots.store-well-again")


async def _lines(pages: AsyncIterator[Sequence[Stored]], form: bytes) -> AsyncIterator[bytes]:
    """A list in restic's JSON, page by page: of names and sizes, or in version 1 of names."""
    opening = b"["
    async for page in pages:
        named = [(name, one.size) for one in page if (name := name_of(one.key)) is not None]
        if form == V2:
            items = [f'{{"name":"{name}","size":{size}}}' for name, size in named]
        else:
            items = [f'"{name}"' for name, _ in named]
        if items:
            yield opening + ",".join(items).encode()
            opening = b","
    yield b"[]" if opening == b"[" else b"]"
