"""JSON in, bounded and checked; JSON out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from matrix.errors import BadRequest
from matrix.http.interfaces import Exchange, HeaderList

if TYPE_CHECKING:
    from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound="BaseModel")

BODY_LIMIT = 64 * 1024
"""Bytes. Calls carry a few fields; what is longer is a mistake or an attack."""


def send_json(
    exchange: Exchange, value: object, status: int = 200, headers: HeaderList = ()
) -> None:
    """Answer with C{value} as JSON (UTF-8); kept by no cache unless C{headers} say so."""
    fields = [(b"content-type", b"application/json"), *headers]
    if not any(name == b"cache-control" for name, _ in headers):
        fields.append((b"cache-control", b"no-store"))
    exchange.respond(status, fields, dump(value))


def dump(value: object) -> bytes:
    """C{value} as compact JSON, one line of UTF-8. Text that UTF-8 cannot carry (a lone
    surrogate) stays an escape."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


async def read_json(exchange: Exchange, limit: int = BODY_LIMIT) -> Any:
    """
    The request's body, parsed.

    @param limit: bytes.
    @raise BadRequest: with C{reason} C{content-type} or C{json}.
    @raise matrix.errors.PayloadTooLarge: it is longer than C{limit}.
    """
    _expect_json(exchange.request.get(b"content-type"))
    body = await exchange.read_body(limit)
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8", reason="json") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"the body is not JSON: {error.msg} at {where}", reason="json") from None
    except (ValueError, RecursionError):
        raise BadRequest("the body is JSON that no program should send", reason="json") from None


async def read_model(exchange: Exchange, model: type[ModelT], limit: int = BODY_LIMIT) -> ModelT:
    """
    The request's body as a pydantic model.

    @raise BadRequest: as L{read_json}, or with C{reason} C{field}; the text names the
        field, and never repeats what was sent in it.
    """
    # Whoever has a model has loaded pydantic (0.1 s); the daemon has none and must not pay.
    from pydantic import ValidationError

    value = await read_json(exchange, limit)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
    raise BadRequest("; ".join(map(_fault, faults)), reason="field")


def _fault(fault: Mapping[str, Any]) -> str:
    field = ".".join(map(str, fault["loc"])) or "body"
    return f"{field}: {fault['msg']}"


def _expect_json(content_type: bytes | None) -> None:
    kind = (content_type or b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise BadRequest(
            "the body must be JSON, with Content-Type: application/json", reason="content-type"
        )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
