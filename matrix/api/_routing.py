"""Which handler answers which method and path: one table, asked once per request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote

from werkzeug import exceptions
from werkzeug.routing import Map, MapAdapter, Rule
from werkzeug.routing.converters import BaseConverter, UnicodeConverter, ValidationError

from matrix.errors import MatrixError, MethodNotAllowed, NotFound
from matrix.http.interfaces import Exchange, Request

Answering = Callable[..., Coroutine[Any, Any, None]]
"""C{async def handler(exchange, **params)}; C{params} are the rule's placeholders."""

AnsweringT = TypeVar("AnsweringT", bound=Answering)

Check = Callable[[Request], None]
"""Returns for a request that may go on, raises a L{MatrixError} for any other."""


class _Segment(UnicodeConverter):
    """C{<name>}: one path segment, decoded after the match, so that an encoded slash
    never changes which rule matches."""

    def to_python(self, value: str) -> str:
        try:
            return unquote(value, errors="strict")
        except UnicodeDecodeError as error:
            raise ValidationError from error


class _Raw(BaseConverter):
    """C{<raw:name>}: the rest of the path, slashes and all, still percent-encoded."""

    part_isolating = False
    regex = ".*"
    weight = 200


@dataclass(frozen=True, slots=True)
class _Route:
    handler: Answering
    public: bool


def _open(request: Request) -> None:
    """The check of an API that asks nothing of its callers."""


class Api:
    """
    A handler of requests (L{matrix.http.interfaces.Handler}) made of routes.

    C{HEAD} follows C{GET}, C{OPTIONS} is answered from the table. Whoever fails the check
    learns nothing of the table: 404 and 405 come after it.
    """

    def __init__(self, check: Check = _open) -> None:
        """
        @param check: asked before each call, but those of public routes.
        """
        self._check = check
        self._map = Map(
            strict_slashes=False,
            merge_slashes=False,
            converters={"default": _Segment, "string": _Segment, "raw": _Raw},
        )
        self._adapter: MapAdapter = self._map.bind("api")

    def add(self, method: str, rule: str, handler: Answering, *, public: bool = False) -> None:
        """
        Let C{handler} answer C{method} on the paths of C{rule} (werkzeug's syntax, plus
        C{<raw:name>}).
        """
        self._map.add(Rule(rule, methods=[method], endpoint=_Route(handler, public)))

    def route(
        self, method: str, rule: str, *, public: bool = False
    ) -> Callable[[AnsweringT], AnsweringT]:
        """L{add}, as a decorator."""

        def register(handler: AnsweringT) -> AnsweringT:
            self.add(method, rule, handler, public=public)
            return handler

        return register

    def __call__(self, exchange: Exchange) -> None:
        """
        @raise MatrixError: the check's own, L{NotFound}, or L{MethodNotAllowed}.
        """
        request = exchange.request
        try:
            route, params = self._match(request)
        except MatrixError:
            self._check(request)
            raise
        if not route.public:
            self._check(request)
        exchange.spawn(route.handler(exchange, **params))

    def _match(self, request: Request) -> tuple[_Route, dict[str, Any]]:
        path = request.path.decode("latin-1")
        method = request.method.decode("latin-1")
        if path[:1] != "/" or path[:2] == "//":
            # The table would take further slashes, or none, for one.
            raise NotFound(f"there is nothing at {path}")
        try:
            route, params = self._adapter.match(path, method)
        except exceptions.MethodNotAllowed as error:
            allowed = sorted({*(error.valid_methods or ()), "OPTIONS"})
            allow = (b"allow", ", ".join(allowed).encode())
            if method == "OPTIONS":
                return _Route(_options, public=False), {"allow": allow}
            raise MethodNotAllowed(
                f"{method} is not possible here; {allow[1].decode()} are", headers=[allow]
            ) from None
        except exceptions.NotFound:
            raise NotFound(f"there is nothing at {path}") from None
        return route, dict(params)


async def _options(exchange: Exchange, allow: tuple[bytes, bytes]) -> None:
    exchange.respond(204, [allow])
